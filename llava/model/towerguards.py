"""Refusals before anything runs: what a method wants from a vision tower that has it not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llava.errors import UnsupportedModel
from llava.model.families.base import Family
from llava.reduction import registry
from llava.reduction.image import BeforeLLM, Encoder

BLOCK_PARTS = ("layer_norm1", "layer_norm2", "mlp")


def refuse(method: BeforeLLM, model: Any, family: Family, kind: str) -> None:
    """Refuse a method that cannot work with this vision tower, and name those that can.

    Args:
        method: it acts before the language model.
        model, family: a vision-language model and its adapter.
        kind: "image" or "video".
    """
    name, tower = type(model).__name__, family.tower(model, kind)
    blocks, feature_block = family.tower_blocks(model, kind), family.feature_block(model, kind)
    if method.needs_cls and not family.has_cls(model, kind):
        others = _methods(lambda cls: not getattr(cls, "needs_cls", False))
        raise UnsupportedModel(
            f"Method {method.name!r} scores with the [CLS] token of the vision tower; the tower of {name} "
            f"({type(tower).__name__}) has none, or hands it to the language model. Methods that need none: {others}."
        )
    if method.needs_tiles and not family.tiled:
        otherwise = ", variant='clean', which takes the image for one tile" if hasattr(method, "variant") else ""
        raise UnsupportedModel(
            f"Method {method.name!r} shares a budget among the tiles of an image; {name} sees every image as one. Use "
            f"a LLaVA-NeXT model{otherwise}, or another method: "
            f"{_methods(lambda cls: not getattr(cls, 'needs_tiles', False))}."
        )
    merges = isinstance(method, Encoder)
    if (method.tower_layers or merges) and not (family.token_by_token and blocks and feature_block is not None):
        raise UnsupportedModel(
            f"Method {method.name!r} looks into the blocks of the vision tower, which cannot be done in {name}. "
            f"Methods that do not: {_methods(_stays_outside)}."
        )
    if merges and not all(hasattr(blocks[0], part) for part in BLOCK_PARTS):
        raise UnsupportedModel(
            f"Method {method.name!r} merges in the blocks of the vision tower; those of {name} "
            f"({type(blocks[0]).__name__}) are built in another way. Methods that do not: {_methods(_stays_outside)}."
        )
    if method.resizes and (family.tiled or not family.token_by_token or not _interpolates(tower)):
        raise UnsupportedModel(
            f"Method {method.name!r} gives the vision tower a smaller image, which that of {name} cannot take. Make "
            "images smaller before they reach the processor, or use a model with one tile per image and a CLIP tower."
        )


def refuse_blocks(method: BeforeLLM, numbers: Sequence[int | None], n_blocks: int) -> None:
    """Refuse to read blocks that the tower has not."""
    outside = [number for number in numbers if number is not None and not -n_blocks <= number < n_blocks]
    if outside:
        raise UnsupportedModel(
            f"Method {method.name!r} reads block {outside[0]} of the vision tower, which has {n_blocks}: give one from "
            f"0 to {n_blocks - 1}, or from -{n_blocks} to -1 counted from the end."
        )


def refuse_flash(method: BeforeLLM, block: Any) -> None:
    """Refuse weights per token where the kernel takes none."""
    kernel = block.self_attn.config._attn_implementation
    if "flash" in kernel:
        raise UnsupportedModel(
            f"Method {method.name!r} adds a weight per token to the vision tower's attention, which the kernel "
            f"{kernel!r} cannot do. Load the model with attn_implementation='sdpa', or give prop_attn=False."
        )


def _interpolates(tower: Any) -> bool:
    embeddings = getattr(getattr(tower, "vision_model", tower), "embeddings", None)
    return hasattr(embeddings, "interpolate_pos_encoding")


def _stays_outside(cls: type) -> bool:
    reads = issubclass(cls, BeforeLLM) and cls.tower_layers is not BeforeLLM.tower_layers
    return not reads and not issubclass(cls, Encoder)


def _methods(fits: Callable[[type], bool]) -> str:
    return ", ".join(name for name in registry.names() if fits(registry.get(name)))
