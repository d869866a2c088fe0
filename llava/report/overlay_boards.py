"""Where the visual tokens of an image or video stand: the pictures the vision tower was shown, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava.errors import BadInput
from llava.model.families import family_of
from llava.model.families.base import Family

Inputs = Mapping[str, Any]
WHOLE, TILES = "the whole image", "tiles"


@dataclass(frozen=True)
class Board:
    """One picture the vision tower was shown.

    Args:
        pixels: (H, W, 3) uint8.
        tokens: (rows, columns) which visual token of the image a cell is; -1: none.
        name: what it shows, where an image has several boards.
        edges: rows and columns of cells at which a new tile begins.
        row_ends: (rows,) the newline token that ends a row; empty without newlines.
        class_token: the class token that belongs to it; -1: none.
    """

    pixels: np.ndarray
    tokens: np.ndarray
    name: str = ""
    edges: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    row_ends: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    class_token: int = -1


def boards(model: Any, processor: Any, inputs: Inputs) -> list[list[Board]]:
    """Return the boards of every image or video of a batch, in the order of the prompts.

    Args:
        model: of the family LLaVA-1.5, LLaVA-NeXT, Video-LLaVA or Qwen-VL.
        processor: its own; tells how pixels were normalised.
        inputs: what the processor returned, of images only or of videos only.

    Raises:
        BadInput: another family, images together with videos, or a prompt without any.
    """
    family = family_of(model)
    makers = {kind: maker for (name, kind), maker in _MAKERS.items() if name == family.name}
    if not makers:
        known = ", ".join(dict.fromkeys(name for name, _ in _MAKERS))
        raise BadInput(f"Where the visual tokens of a {family.name} model stand is not known; it is for: {known}.")
    given = [kind for kind in makers if _pixels(inputs, kind) is not None]
    if len(given) != 1:
        raise BadInput("Kept tokens can be drawn for images or for videos: give prompts with the one or the other.")
    return makers[given[0]](model, family, processor, inputs)


def alike(found: Sequence[Sequence[Board]]) -> tuple[int, int] | None:
    """Return (rows, columns) if every image has one board of that size and nothing else; else None."""
    shapes = {one[0].tokens.shape if len(one) == 1 else None for one in found}
    shape = next(iter(shapes)) if len(shapes) == 1 else None
    return None if shape is None else (int(shape[0]), int(shape[1]))


# ------------------------------------------------------------------------------------------------------ the families


def _squares(model: Any, family: Family, processor: Any, inputs: Inputs) -> list[list[Board]]:
    """LLaVA-1.5 and images of Video-LLaVA: a square of patches, after the class token if that is kept."""
    first = int(model.config.vision_feature_select_strategy == "full")
    side = _side(model, family)
    tokens = first + np.arange(side * side).reshape(side, side)
    images = _shown(_pixels(inputs, "image"), processor)
    return [[Board(image, tokens, class_token=first - 1)] for image in images]


def _frames(model: Any, family: Family, processor: Any, inputs: Inputs) -> list[list[Board]]:
    """Videos of Video-LLaVA: frame after frame, each a class token and a square of patches."""
    side, found = _side(model, family), []
    for video in _pixels(inputs, "video"):
        frames = []
        for number, image in enumerate(_shown(video, processor)):
            first = number * (side * side + 1)
            tokens = first + 1 + np.arange(side * side).reshape(side, side)
            frames.append(Board(image, tokens, f"frame {number + 1}", class_token=first))
        found.append(frames)
    return found


def _tiles(model: Any, family: Family, processor: Any, inputs: Inputs) -> list[list[Board]]:
    """LLaVA-NeXT: the squashed image, then the map of tiles without its border, each row with a newline."""
    side, found = _side(model, family), []
    n_cells, tilings = side * side, family.tilings(model, dict(inputs))
    if tilings is None:
        raise BadInput("The sizes of the images are not among the inputs (image_sizes): give what the processor made.")
    for pixels, tiling in zip(_pixels(inputs, "image"), tilings, strict=True):
        sources: Any = tiling.source
        source, (down, across) = sources.cpu().numpy(), tiling.grid or (0, 0)
        place = np.full(tiling.n_tiles * n_cells, -1)
        place[source[source >= 0]] = np.flatnonzero(source >= 0)
        shown = _shown(pixels[: tiling.n_tiles], processor)
        whole = Board(shown[0], place[:n_cells].reshape(side, side), WHOLE)
        tokens = _joined(place[n_cells:].reshape(down, across, side, side))
        canvas = np.stack([_joined(shown[1:, ..., c].reshape(down, across, *shown.shape[1:3])) for c in range(3)], -1)
        rows, columns = (np.flatnonzero((tokens >= 0).any(axis)) for axis in (1, 0))
        box = tuple(slice(int(own[0]), int(own[-1]) + 1) for own in (rows, columns))
        ends = np.flatnonzero(source < 0)
        found.append(
            [
                whole,
                Board(
                    _part(canvas, tokens.shape, box),
                    tokens[box],
                    TILES,
                    (_edges(box[0], side), _edges(box[1], side)),
                    ends,
                ),
            ]
        )
    return found


def _qwen_images(model: Any, family: Family, processor: Any, inputs: Inputs) -> list[list[Board]]:
    return _qwen(model, processor, inputs["pixel_values"], inputs["image_grid_thw"], moving=False)


def _qwen_videos(model: Any, family: Family, processor: Any, inputs: Inputs) -> list[list[Board]]:
    return _qwen(model, processor, inputs["pixel_values_videos"], inputs["video_grid_thw"], moving=True)


def _qwen(model: Any, processor: Any, rows: Tensor, grids: Tensor, moving: bool) -> list[list[Board]]:
    """Qwen-VL: merged patches row by row; a video has such a map for every few frames, of which the first is shown."""
    vision, found = model.config.vision_config, []
    patch, merge, temporal = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    for own, (times, height, width) in zip(rows.split(grids.prod(-1).tolist()), grids.tolist(), strict=True):
        down, across = height // merge, width // merge
        # token by token, patch by patch -> (time, channel, y, x) of the first frame of every temporal patch
        blocks = own.float().cpu().view(times, down, across, merge, merge, 3, temporal, patch, patch)[:, ..., 0, :, :]
        pixels = blocks.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(times, 3, height * patch, width * patch)
        tokens = np.arange(times * down * across).reshape(times, down, across)
        names = [f"frames {temporal * t + 1}-{temporal * t + temporal}" if moving else "" for t in range(times)]
        found.append([Board(*each) for each in zip(_shown(pixels, processor), tokens, names, strict=True)])
    return found


Maker = Callable[[Any, Family, Any, Inputs], list[list[Board]]]
_QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_MAKERS: dict[tuple[str, str], Maker] = {
    ("llava", "image"): _squares,
    ("llava_next", "image"): _tiles,
    ("video_llava", "image"): _squares,
    ("video_llava", "video"): _frames,
    **{(name, "image"): _qwen_images for name in _QWEN},
    **{(name, "video"): _qwen_videos for name in _QWEN},
}


# ------------------------------------------------------------------------------------------------------------- parts


def _pixels(inputs: Inputs, kind: str) -> Any:
    """The pixels of images or videos, under any version's name; None if there are none."""
    names = ("pixel_values", "pixel_values_images") if kind == "image" else ("pixel_values_videos",)
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)


def _side(model: Any, family: Family) -> int:
    """Tokens along one side of a tower input."""
    vision = model.config.vision_config
    return (family.tile_side(model) or (vision.image_size // vision.patch_size,))[0]


def _shown(pixels: Tensor, processor: Any) -> np.ndarray:
    """Normalised pixels (n, 3, H, W) -> (n, H, W, 3) uint8."""
    like = getattr(processor, "grid", None)
    mean = like.mean if like is not None else processor.image_mean
    std = like.std if like is not None else processor.image_std
    channels = pixels.float().cpu() * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return (channels * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def _joined(tiles: np.ndarray) -> np.ndarray:
    """(down, across, h, w) -> (down * h, across * w)."""
    down, across, height, width = tiles.shape
    return tiles.transpose(0, 2, 1, 3).reshape(down * height, across * width)


def _part(pixels: np.ndarray, cells: tuple[int, ...], box: tuple[slice, ...]) -> np.ndarray:
    """The pixels of a box of cells."""
    (top, bottom), (left, right) = (
        (own.start * size // n, own.stop * size // n) for own, size, n in zip(box, pixels.shape, cells, strict=False)
    )
    return pixels[top:bottom, left:right]


def _edges(span: slice, side: int) -> tuple[int, ...]:
    """Cells of a span at which a tile begins, its own first cell left out."""
    return tuple(cell - span.start for cell in range(side, span.stop, side) if cell > span.start)
