"""Choosing among the projected tokens of one image, as the model classes for vLLM do; needs no vLLM.

The method sees what it sees in this package's own path before the language model, so the same tokens go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from llava.errors import BadInput
from llava.reduction.base import Reduction
from llava.reduction.image import TOWER, BeforeLLM, ImageState, Tiles


@dataclass(frozen=True)
class Chosen:
    """What goes on of an image.

    Args:
        values: (K, D) the tokens.
        indices: (K,) which of the image's tokens they stand for; None: all in order, or none in particular.
    """

    values: Tensor
    indices: Tensor | None = None


def state(features: Tensor, side: tuple[int, int] | None = None) -> ImageState:
    """What a method sees of an image that is one tile.

    Args:
        features: (L, D) the image's tokens as the language model would get them.
        side: (rows, columns) of their grid; None if they stand in no plain grid.
    """
    return ImageState(features, Tiles(features[None], side=side))


def choose(method: Reduction, image: ImageState) -> Chosen:
    """Ask a method what goes on of an image.

    Args:
        method: one that keeps everything is never asked.
        image: what it may look at.

    Raises:
        BadInput: not as many tokens as were announced, for which the prompt has places.
    """
    features, n_visual = image.features, image.n_visual
    due = n_places(method, n_visual)
    if due == n_visual or not isinstance(method, BeforeLLM):
        return Chosen(features)
    kept = method.select_image(image)
    if kept.count != due:
        raise BadInput(
            f"Method {method.name!r} kept {kept.count} tokens of {n_visual}, but its n_kept announced {due}."
        )
    values = features[kept.indices] if kept.values is None else kept.values
    if kept.values is not None and kept.space == TOWER:
        values = image.project(values)
    return Chosen(values.to(features.dtype), kept.indices)


def n_places(method: Reduction, n_visual: int) -> int:
    """How many of an image's tokens will go on, known from their number alone."""
    kept = method.n_kept(n_visual)
    return n_visual if kept is None else min(kept, n_visual)
