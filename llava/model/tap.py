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

TAP = "llava_tap"
ROWS_AT_ONCE = 128

Reader = Callable[["Attention"], None]


@dataclass(frozen=True)
class Attention:
    """What one attention call was given.

    Args:
        query: (B, H, S, d); key, value: (B, G, S, d), G key/value heads; post-rotary, the first S columns of the cache.
        mask: None, 4-D bool or additive, or 2-D.
        scaling: factor on the logits.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float

    def rows(self, index: Tensor) -> Tensor:
        """Attention probabilities of the query columns `index` (R,): (B, H, R, S), softmax in single precision."""
        batch, heads, length, size = self.query.shape
        query = self.query[:, :, index].unflatten(1, (self.key.shape[1], -1))  # (B, G, H / G, R, d)
        logits = (query @ self.key[:, :, None].transpose(-1, -2)).float() * self.scaling
        columns = torch.arange(length, device=index.device)
        visible = (columns[None, :] <= index[:, None])[None, None]
        if self.mask is not None and self.mask.ndim == 4:
            mask = self.mask[:, :, index, :length]
            visible = visible & (mask if mask.dtype == torch.bool else mask == 0)
        elif self.mask is not None:
            visible = visible & self.mask[:, None, None, :length].bool()
        logits = logits.masked_fill(~visible[:, :, None], torch.finfo(logits.dtype).min)
        return logits.softmax(-1).flatten(1, 2).to(self.query.dtype).view(batch, heads, -1, length)

    def received(self, real: Tensor) -> Tensor:
        """(B, S) attention each column received: mean over heads and over the queries that are real, (B, S) bool."""
        total = torch.zeros(real.shape, dtype=torch.float32, device=real.device)
        for start in range(0, real.shape[1], ROWS_AT_ONCE):
            index = torch.arange(start, min(start + ROWS_AT_ONCE, real.shape[1]), device=real.device)
            total += (self.rows(index).float().mean(1) * real[:, index, None]).sum(1)
        return total / real.sum(1, keepdim=True)


@contextmanager
def tapped(attention: torch.nn.Module, read: Reader) -> Iterator[None]:
    """Call `read` with every prefill attention call of one attention module inside the block."""
    config = attention.config
    attention.config = copy.copy(config)
    attention.config._attn_implementation_internal = TAP
    attention.config.llava_tap = (config, read)
    try:
        yield
    finally:
        attention.config = config


def _tap(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> Any:
    tapping = module.config
    config, read = tapping.llava_tap
    length = query.shape[2]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    read(Attention(query, key[:, :, :length], value[:, :, :length], mask, scale))
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
    module.config = config  # kernels read their own name there
    try:
        return kernel(module, query, key, value, mask, scaling=scaling, **kwargs)
    finally:
        module.config = tapping


ALL_ATTENTION_FUNCTIONS.register(TAP, _tap)
