"""Cutting the cache once, at the end of the prefill, for methods that ask for it.

Touches: the key and value tensors of transformers' dynamic and static cache layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from llava.errors import BadInput
from llava.model.cuts import staged
from llava.model.stages import PromptState
from llava.reduction.base import CacheState, LLMStage


def cut_cache(method: LLMStage, state: PromptState, cache: Any, together: bool, positions: Tensor | None) -> None:
    """Ask the method for every layer but the first, and drop what it does not keep.

    Args:
        method: its `select_cache` decides.
        state: the prompt's cuts; layers that are cut here get a stage of their own.
        cache: a dynamic or static cache of transformers.
        together: whether a problem spans all images of a prompt.
        positions: (B, N) of the prompt's columns, if later tokens are numbered by what is left in a layer; else None.

    Raises:
        BadInput: another kind of cache.
    """
    if not state.stages:
        return
    alive = _alive(state)
    for number in range(1, len(cache.layers)):
        before = state.at(number)
        image, real = state.columns(before)
        n_visual = state.layout.counts(together) if before is None else state.alive[state.stages.index(before)]
        groups = state.layout.groups(together, image, real, n_visual, number)
        lives = alive if before is None else alive.gather(1, before.source)
        survivors = groups.visual(lives) & groups.valid
        kept = method.select_cache(CacheState(number, groups, survivors))
        if kept is None:
            continue
        keep = (real & (image < 0)) | groups.scatter(kept, *image.shape)
        n_kept = state.n_visual if kept is survivors else (kept & groups.valid).sum(1).tolist()
        stage, columns = staged(state, before, number, keep, n_kept, together, positions)
        state.cached[number] = stage
        _keep_columns(cache.layers[number], columns, image.shape[1])


def _alive(state: PromptState) -> Tensor:
    """(B, N) bool: prompt columns that the last layer sees."""
    last = state.stages[-1]
    valid = torch.ones_like(last.source) if last.valid is None else last.valid.long()
    return torch.zeros_like(state.layout.image).scatter_add_(1, last.source, valid) > 0


def _keep_columns(layer: Any, columns: Tensor, n_columns: int) -> None:
    """Keep (B, S') columns of one layer's keys and values, which hold `n_columns`."""
    stored = getattr(layer, "keys", None)
    whole = type(layer) is DynamicSlidingWindowLayer and stored is not None and stored.shape[2] == n_columns
    if type(layer) not in (DynamicLayer, StaticLayer) and not whole:
        raise BadInput(
            f"Cache layers of type {type(layer).__name__} cannot be cut at the end of the prefill. Use the default "
            "cache or a StaticCache, or a method that does not cut the cache."
        )
    left = [_columns(tensor, columns) for tensor in (layer.keys, layer.values)]
    if type(layer) is not StaticLayer:
        layer.keys, layer.values = left
        if whole:
            layer.cumulative_length = columns.shape[1]
        return
    tensors: tuple[Any, Any] = (layer.keys, layer.values)
    for tensor, kept in zip(tensors, left, strict=True):
        tensor.zero_()
        tensor[:, :, : columns.shape[1]] = kept
    layer.cumulative_length.fill_(columns.shape[1])


def _columns(tensor: Tensor, columns: Tensor) -> Tensor:
    """(B, G, S, d), (B, S') -> (B, G, S', d)."""
    return tensor.gather(2, columns[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3]))
