"""What a prefill costs: floating point operations from lengths and sizes, cache bytes from the live tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PER_SAMPLE = (
    *("prompt", "visual", "asked", "final", "newlines", "newlines_kept", "mean_over_layers"),
    *("flops_paper", "flops_paper_unpruned", "flops_exact", "flops_exact_unpruned", "reused", "flops_computed"),
)
"""Numbers of a `Report` with one entry per sample, of which runs give means."""
PER_BATCH = ("cache_bytes", "cache_bytes_unpruned", "selection_seconds")
"""Numbers of a `Report` that belong to the whole batch."""


@dataclass(frozen=True)
class DecoderSize:
    """Sizes of a text model: d, heads and key/value heads of `head` channels, FFN width m, layers T."""

    width: int
    heads: int
    kv_heads: int
    head: int
    ffn: int
    layers: int

    @staticmethod
    def of(config: Any) -> DecoderSize:
        """Read the sizes off a text model's configuration."""
        heads = config.num_attention_heads
        return DecoderSize(
            width=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head=getattr(config, "head_dim", None) or config.hidden_size // heads,
            ffn=config.intermediate_size,
            layers=config.num_hidden_layers,
        )


def flops_paper(lengths: Sequence[int], size: DecoderSize) -> int:
    """Prefill cost by the paper's Eq. 11-13: the sum over layers of 4 n d^2 + 2 n^2 d + 2 n d m.

    As printed there: multiply-adds, two FFN matrices, square attention, all heads with keys and values of their own.

    Args:
        lengths: tokens n in every layer, text included.
        size: sizes of the text model.
    """
    d, m = size.width, size.ffn
    return sum(4 * n * d * d + 2 * n * n * d + 2 * n * d * m for n in lengths)


def flops_exact(lengths: Sequence[int], size: DecoderSize) -> int:
    """Floating point operations of the matrix products in the decoder layers during the prefill, two per multiply-add.

    Counts the query, key, value and output projections with the model's own key/value heads, the causal half of the
    attention (n (n + 1) / 2 pairs), and the three FFN matrices. Not counted: norms, softmax, embeddings, language head,
    vision tower.

    Args:
        lengths: tokens n in every layer, text included.
        size: sizes of the text model.
    """
    queries, pairs_width = size.heads * size.head, size.kv_heads * size.head
    projections = 2 * size.width * queries + 2 * size.width * pairs_width
    ffn = 3 * size.width * size.ffn
    return sum(2 * (n * (projections + ffn) + n * (n + 1) // 2 * 2 * queries) for n in lengths)


def cache_bytes(cache: Any) -> int:
    """Bytes of all keys and values a cache holds now; a static cache counts what it has allocated."""
    return sum(tensor.nbytes for tensor in _tensors(cache))


def cache_bytes_if_full(cache: Any, n_before: int = 0) -> int:
    """Bytes the cache would hold if nothing had been cut.

    Args:
        cache: its first layer, which no layer cuts, says how long all would be.
        n_before: columns cut before the language model.
    """
    tensors = _tensors(cache)
    longest = tensors[0].shape[-2] + n_before if tensors else 0
    return sum(tensor.nbytes // max(tensor.shape[-2], 1) * longest for tensor in tensors)


def _tensors(cache: Any) -> list[Any]:
    layers = getattr(cache, "layers", None) or []
    return [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
