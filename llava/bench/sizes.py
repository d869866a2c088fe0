"""Sizes of models that can be measured with random weights: what a model costs does not depend on what it knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from llava.errors import ConfigurationError
from llava.model.accounting import DecoderSize


@dataclass(frozen=True)
class Shape:
    """Sizes of a text decoder: layers, width, heads, key/value heads, FFN width; and how images come to it.

    Args:
        next: the image is cut into tiles, as in LLaVA-NeXT.
        tower: vision tower, one of `TOWERS`; with a tiny one the decoder is all that counts.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    next: bool = False
    tower: str = "tiny"

    @property
    def decoder(self) -> DecoderSize:
        """The sizes that the accounting reads."""
        return DecoderSize(
            self.width, self.heads, self.kv_heads, head=self.width // self.heads, ffn=self.ffn, layers=self.layers
        )


@dataclass(frozen=True)
class Tower:
    """Sizes of a vision tower."""

    layers: int
    width: int
    heads: int
    ffn: int


SHAPES = {
    "small": Shape(16, 1024, 16, 16, 2752),
    "llava-1.5-7b": Shape(32, 4096, 32, 32, 11008),
    "llava-1.5-13b": Shape(40, 5120, 40, 40, 13824),
    "llava-next-7b": Shape(32, 4096, 32, 32, 11008, next=True, tower="clip-l"),
    "qwen2-vl-7b": Shape(28, 3584, 28, 4, 18944),
}
TOWERS = {"tiny": Tower(2, 64, 1, 64), "clip-l": Tower(24, 1024, 16, 4096)}
FEWEST_LAYERS = 3  # two that see all tokens, and one after the cut
PATCH = 14  # pixels, side of a patch
TILE = 336  # pixels, side of a tile


def problems(name: str, layers: int | None = None, tower: str | None = None) -> list[str]:
    """Return what is wrong with the words for a shape, all of it."""
    found = []
    if name not in SHAPES:
        found.append(f"Unknown shape {name!r}. Known: {', '.join(SHAPES)}.")
    elif layers is not None and not FEWEST_LAYERS <= layers <= SHAPES[name].layers:
        found.append(f"--layers {layers}: give {FEWEST_LAYERS} to {SHAPES[name].layers} for {name}.")
    if tower is not None and tower not in TOWERS:
        found.append(f"Unknown tower {tower!r}. Known: {', '.join(TOWERS)}.")
    return found


def named(name: str, layers: int | None = None, tower: str | None = None) -> Shape:
    """Return a shape by name, or its first `layers` layers, or with another tower.

    Raises:
        ConfigurationError: there is no such shape or tower, or it has fewer layers.
    """
    found = problems(name, layers, tower)
    if found:
        raise ConfigurationError(*found)
    shape = SHAPES[name]
    return replace(shape, layers=layers or shape.layers, tower=tower or shape.tower)


def tiles_across(wanted: int) -> int:
    """Return how many crops stand side by side (and below each other) for the nearest number of visual tokens."""
    return max(1, round(math.sqrt(max(1, wanted / (TILE // PATCH) ** 2 - 1))))


def visual_tokens(shape: Shape, wanted: int) -> int:
    """Return the number of visual tokens nearest to `wanted` that an image can have with this shape.

    One square image gives a square number. A LLaVA-NeXT sees the whole image and a square of crops, whose rows of
    tokens end with a newline each.
    """
    if not shape.next:
        return round(math.sqrt(wanted)) ** 2
    side = TILE // PATCH
    across = tiles_across(wanted) * side
    return side**2 + across * (across + 1)
