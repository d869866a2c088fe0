"""Operations and bytes that the shapes alone tell: the vision tower, the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava.bench.sizes import Tower
from llava.model.accounting import DecoderSize
from llava.model.families.base import Family


def tower_flops(model: Any, family: Family, inputs: dict[str, Any]) -> int | None:
    """Return the operations of a CLIP or SigLIP tower for the images of a batch; None for towers of another kind.

    Counted up to the layer whose features are used.
    """
    pixels, config = inputs.get("pixel_values"), getattr(family.tower(model), "config", None)
    sizes: Any = [getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    side, ffn = family.tile_side(model), getattr(config, "intermediate_size", 0)
    block = family.feature_block(model)
    if pixels is None or side is None or block is None or not all(isinstance(n, int) for n in sizes):
        return None
    tiles = pixels.numel() // pixels[(0,) * (pixels.ndim - 3)].numel()
    return tiles * tower_layers(Tower(block + 1, sizes[1], sizes[2], ffn), side[0] * side[1] + family.has_cls(model))


def tower_layers(tower: Tower, n: int) -> int:
    """Return the operations of a tower's layers for one tile of n tokens: projections, full attention, two matrices."""
    d = tower.width
    return tower.layers * 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * tower.ffn)


def cache_bytes(lengths: Sequence[int], size: DecoderSize, bytes_each: int) -> int:
    """Return the bytes of keys and values of one sample.

    Args:
        lengths: tokens in every layer.
        bytes_each: bytes of one number.
    """
    return sum(lengths) * 2 * size.kv_heads * size.head * bytes_each


def layer_lengths(n: int, kept: int, layer: int, layers: int, text: int = 0) -> list[int]:
    """Return the tokens in every layer when `n` visual tokens become `kept` at the input of `layer`."""
    return [(n if number < layer else kept) + text for number in range(layers)]
