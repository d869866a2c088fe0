"""Attention masks for layers that see fewer columns than the prompt has, made by transformers' own mask functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING

from llava.model.stages import Stage

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_type(config: Any, layer: int) -> str:
    """Kind of attention of a decoder layer, as transformers names it."""
    if getattr(config, "layer_types", None):
        return config.layer_types[layer]
    return SLIDING if getattr(config, "sliding_window", None) else FULL


def prompt_padding(mask: Any, n_columns: int) -> Tensor | None:
    """Padding of the prompt, (B, N) bool, from whatever mask the model was given; None when it was given none.

    Args:
        mask: None, 2-D, 4-D bool or additive, or a dict of those by layer type.
        n_columns: prompt length N.
    """
    if isinstance(mask, dict):
        mask = mask.get(FULL)
    if mask is None:
        return None
    if mask.ndim == 4:
        last_query = mask[:, 0, n_columns - 1, :n_columns]  # it sees every real column before it
        return last_query if mask.dtype == torch.bool else last_query == 0
    return mask[:, :n_columns].bool()


def stage_mask(
    config: Any, layer: int, hidden: Tensor, stage: Stage, cache: Any, given: Tensor | None
) -> Tensor | None:
    """Mask for a layer that works on `stage`.

    Args:
        config: configuration of the text model.
        layer: decoder layer.
        hidden: (B, S, D) its input.
        stage: the columns it sees of the prompt.
        cache: the cache, or None.
        given: the mask the text model made for this layer from the whole prompt (prefill), else None.
    """
    if torch.is_tensor(given) and given.ndim == 4:
        return _gathered(given, layer, stage, cache)
    return causal_mask(config, layer, hidden, stage.valid, cache)


def causal_mask(config: Any, layer: int, hidden: Tensor, valid: Tensor | None, cache: Any) -> Tensor | None:
    """Mask for queries (B, S, D) after what the layer's cache holds; `valid` (B, n): the first columns' padding."""
    make: Any = LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[layer_type(config, layer)]
    valid = _seen(config, layer, hidden, valid, cache)
    return make(config=config, inputs_embeds=hidden, attention_mask=valid, past_key_values=cache, layer_idx=layer)


def _gathered(given: Tensor, layer: int, stage: Stage, cache: Any) -> Tensor:
    """Rows and columns of the prompt's 4-D mask, so that patterns only the model knows (windows, blocks) survive."""
    n_rows, n_columns = stage.index.shape
    mask = given.expand(n_rows, -1, -1, -1)
    mask = mask.gather(2, stage.index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    mask = mask.gather(3, stage.index[:, None, None, :].expand(-1, mask.shape[1], n_columns, -1))
    hidden_value = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    if stage.valid is not None:
        mask = mask.masked_fill(~stage.valid[:, None, None, :], hidden_value)
    length = cache.get_mask_sizes(n_columns, layer)[0] if cache is not None else n_columns
    return F.pad(mask, (0, length - n_columns), value=hidden_value)  # a static cache has slots not written yet


def _seen(config: Any, layer: int, hidden: Tensor, valid: Tensor | None, cache: Any) -> Tensor | None:
    """2-D padding mask over everything the layer's cache will hold: the stage, then the tokens generated since."""
    if cache is not None and cache.is_compileable and "flash" in config._attn_implementation:
        # With a static cache the flash kernels cut keys and values by this mask, so it must end at the newest token.
        length = int(cache.get_seq_length(layer)) + hidden.shape[1]
        valid = hidden.new_ones(hidden.shape[0], 0, dtype=torch.bool) if valid is None else valid
        return F.pad(valid, (0, length - valid.shape[1]), value=True)
    if valid is None or cache is None:
        return valid
    length, offset = cache.get_mask_sizes(hidden.shape[1], layer)
    return F.pad(valid, (0, length + offset - valid.shape[1]), value=True)
