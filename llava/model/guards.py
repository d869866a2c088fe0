"""Refusals of the surgery: what cannot work with fewer tokens is said, never done quietly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llava.errors import BadInput, UnsupportedModel
from llava.model.masks import FULL, SLIDING, layer_type
from llava.model.uncached import image_inputs
from llava.reduction.base import Reduction
from llava.reduction.groups import Groups


def refuse_layers(decoder: Any, layers: tuple[int, ...]) -> None:
    """Refuse cuts outside the model, and layers that cannot go on with fewer tokens."""
    n_layers = len(decoder.layers)
    for number in layers:
        if not 1 <= number < n_layers:
            raise UnsupportedModel(
                f"layer={number} is outside the model: its language model has {n_layers} layers, and the cut is made "
                f"before a layer that has another before it. Give a layer from 1 to {n_layers - 1}."
            )
    other = _kinds_after(decoder, layers) - {FULL, SLIDING}
    if other:
        raise UnsupportedModel(
            f"{type(decoder).__name__} has layers of type {', '.join(sorted(other))} after the cut; only layers with "
            "ordinary attention can go on with fewer tokens."
        )


def refuse_short_windows(decoder: Any, layers: tuple[int, ...], n_columns: int) -> None:
    """Refuse prompts longer than the attention window of a layer after the cut."""
    window = getattr(decoder.config, "sliding_window", None)
    if window is not None and window < n_columns and SLIDING in _kinds_after(decoder, layers):
        raise UnsupportedModel(
            f"The prompt has {n_columns} tokens but attention layers after the cut look back only {window}: after the "
            "cut the window would span other tokens. Shorten the prompt, or do without pruning (method none)."
        )


def refuse_call(kwargs: dict[str, Any], continues: bool) -> None:
    """Refuse arguments of the model's forward that count on the full prompt length."""
    if kwargs.get("labels") is not None:
        raise BadInput(
            "labels= cannot be used while the model is pruned: the logits are shorter than the prompt. Compute the "
            "loss from the logits yourself, or leave the pruning first."
        )
    if torch.is_tensor(kwargs.get("logits_to_keep")) and not continues:
        raise BadInput(
            "logits_to_keep= with positions cannot be used in a pruned prefill: positions shift when tokens are cut. "
            "Give a count (logits_to_keep=1 for the last token)."
        )


def refuse_chunks(generation_config: Any) -> None:
    """Refuse a prefill in pieces."""
    refuse_chunk_size(getattr(generation_config, "prefill_chunk_size", None))


def refuse_chunk_size(size: int | None) -> None:
    """Refuse a prefill in pieces of `size` tokens."""
    if size is not None:
        raise BadInput(
            "prefill_chunk_size cannot be used while the model is pruned: tokens are chosen by looking at the whole "
            "prompt, which must be computed in one piece. Leave prefill_chunk_size out."
        )


def refuse_unseen_ids(ids: Tensor | None, n_columns: int) -> None:
    """Refuse a prefill whose token ids are not known."""
    if ids is None or ids.shape[1] != n_columns:
        raise BadInput(
            "A pruned model needs input_ids in the prefill: they show where the images are. Call the whole model with "
            "input_ids= (and pixel_values=), not with inputs_embeds= alone and not its language model by itself."
        )


def refuse_new_images(inputs: dict[str, Any], placeholders: tuple[int, ...]) -> None:
    """Refuse images in a continuation: nothing has been, or can be, chosen among their tokens.

    Placeholder ids without an image are let through: prompt-lookup decoding proposes them.
    """
    ids = inputs.get("input_ids")
    if ids is None or all(image is None for image in image_inputs(inputs)):
        return
    if torch.isin(ids, torch.tensor(placeholders, device=ids.device)).any():
        raise BadInput(
            "A new image on top of a cache that already holds a prompt cannot be pruned. Start a new cache with the "
            "whole conversation (past_key_values=None), images included."
        )


def refuse_handed(handed: dict[str, Tensor], n_visual: int) -> None:
    """Refuse scores of an earlier stage that do not fit the visual tokens of the batch."""
    for name, values in handed.items():
        if tuple(values.shape) != (n_visual,):
            raise BadInput(
                f"{name!r} was handed on for {tuple(values.shape)} visual tokens but the prompts of the batch have "
                f"{n_visual}: hand on one value per visual token, in the order of the prompts."
            )


def refuse_selection(method: Reduction, kept: Any, groups: Groups) -> None:
    """Refuse what is no mask over the competing tokens, as a user's own method may return."""
    shape = tuple(groups.valid.shape)
    if not torch.is_tensor(kept) or kept.dtype != torch.bool or tuple(kept.shape) != shape:
        what = f"{kept.dtype} of shape {tuple(kept.shape)}" if torch.is_tensor(kept) else type(kept).__name__
        raise BadInput(
            f"Method {method.name!r}: select returned {what}; it must return a bool tensor of shape {shape}, one row "
            "per problem of state.groups, True at survivors."
        )


def _kinds_after(decoder: Any, layers: tuple[int, ...]) -> set[str]:
    n_layers = len(decoder.layers)
    return {layer_type(decoder.config, number) for number in range(min(layers, default=n_layers), n_layers)}
