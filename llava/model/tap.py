"""Reading keys, values and attention rows of one layer while it runs, under any attention kernel.

For the duration of one call of the layer, its attention function is replaced by one that looks at queries, keys and
values (after rotary embedding) and then calls the real kernel. Attention probabilities are computed for a few query
rows at a time; a full map never exists.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llava.reduction.attention import AttentionRows, rows_at_once, softmax_rows
from llava.reduction.groups import Groups

TAP = "llava_tap"

Reader = Callable[["Attention"], None]


@dataclass(frozen=True)
class Attention:
    """What one attention call was given.

    Args:
        query: (B, H, Q, d), those of the last Q of S columns; key, value: (B, G, S, d), G key/value heads; post-rotary,
            the first S columns of the cache.
        mask: None, 4-D bool or additive, or 2-D.
        scaling: factor on the logits.
        first: column of the first query, S - Q; the columns before it come from a stored prefix.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    first: int = 0

    def rows(self, index: Tensor) -> Tensor:
        """Attention probabilities of the query columns `index` (R,): (B, H, R, S), softmax in single precision."""
        samples = torch.arange(len(self.query), device=index.device)
        visible = self._visible(samples, index.expand(len(samples), -1))
        return softmax_rows(self.query[:, :, index - self.first], self.key, visible, self.scaling)

    def asked(self, columns: Tensor, valid: Tensor, groups: Groups) -> AttentionRows:
        """The rows of the query columns (R, Q) of each selection problem, to be computed when they are read."""
        heads = torch.arange(self.query.shape[1], device=columns.device)
        place = (columns - self.first).clamp_min(0)  # padding may be anywhere
        query = self.query[groups.sample[:, None, None], heads[:, None], place[:, None]]  # (R, H, Q, d)
        visible = self._visible(groups.sample, columns)
        return AttentionRows(query, self.key, visible, groups, self.scaling, valid, columns)

    def received(self, real: Tensor) -> Tensor:
        """(B, S) attention each column received: mean over heads and over the queries that are real, (B, S) bool."""
        total = torch.zeros(real.shape, dtype=torch.float32, device=real.device)
        step = rows_at_once(*self.query.shape[:3])
        for start in range(0, real.shape[1], step):
            index = torch.arange(start, min(start + step, real.shape[1]), device=real.device)
            total += (self.rows(index).float().mean(1) * real[:, index, None]).sum(1)
        return total / real.sum(1, keepdim=True)

    def _visible(self, samples: Tensor, columns: Tensor) -> Tensor:
        """(R, Q, S) bool: the keys that the query columns (R, Q) of the samples (R,) see."""
        length = self.key.shape[2]
        visible = torch.arange(length, device=columns.device) <= columns[..., None]
        if self.mask is not None and self.mask.ndim == 4:
            rows = samples if self.mask.shape[0] > 1 else torch.zeros_like(samples)
            mask = self.mask[rows[:, None], 0, (columns - self.first).clamp_min(0), :length]
            visible = visible & (mask if mask.dtype == torch.bool else mask == 0)
        elif self.mask is not None:
            visible = visible & self.mask[samples, None, :length].bool()
        return visible


@contextmanager
def tapped(attention: Any, read: Reader, first: int = 0) -> Iterator[None]:
    """Call `read` with every prefill attention call of one attention module inside the block.

    Args:
        attention: the module.
        read: called with what its attention function is given.
        first: column of the first query.
    """
    config = attention.config
    attention.config = copy.copy(config)
    attention.config._attn_implementation_internal = TAP
    attention.config.llava_tap = (config, read, first)
    try:
        yield
    finally:
        attention.config = config


class _Enough(Exception):
    """Queries and keys have been read; the rest of the layer is not wanted."""


def peek(layer: Any, call: Callable[[], Any]) -> Attention:
    """Return what a layer's attention would be given, without computing more of the layer than that.

    Args:
        layer: decoder layer.
        call: runs the layer; interrupted as soon as its attention is called.
    """
    seen = []

    def read(attention: Attention) -> None:
        seen.append(attention)
        raise _Enough

    try:
        with tapped(layer.self_attn, read):
            call()
    except _Enough:
        pass
    return seen[0]


def _tap(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> Any:
    tapping = module.config
    config, read, first = tapping.llava_tap
    length = first + query.shape[2]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    read(Attention(query, key[:, :, :length], value[:, :, :length], mask, scale, first))
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
    module.config = config  # kernels read their own name there
    try:
        return kernel(module, query, key, value, mask, scaling=scaling, **kwargs)
    finally:
        module.config = tapping


ALL_ATTENTION_FUNCTIONS.register(TAP, _tap)
