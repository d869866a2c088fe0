"""LLaVA-NeXT's tiles: which grid an image is cut into, and how its features are packed (official code, `mm_utils`).

Sizes are (width, height) everywhere. The grid is the official one: on a tie the first of the list wins, and the list is
of widths and heights; transformers reads the same published list as heights and widths, so its grid differs for images
no larger than one tile.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from llava.errors import CheckpointError

Size = tuple[int, int]


def best_resolution(size: Size, resolutions: Sequence[Size]) -> Size:
    """Return the canvas that keeps most of an image's pixels; on a tie the least empty, then the first.

    Args:
        size: of the image.
        resolutions: allowed canvases.
    """
    width, height = size

    def merit(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, pixels - canvas[0] * canvas[1]

    return max(resolutions, key=merit)


def tiles(image: Image.Image, canvas: Size, side: int) -> list[Image.Image]:
    """Return the whole image squashed to one tile, then the tiles of the canvas, row by row.

    Args:
        image: RGB.
        canvas: its sides are multiples of `side`; the image is fitted into it and centred on black.
        side: of a tile in pixels.
    """
    width, height = image.size
    across, down = canvas[0] / width, canvas[1] / height
    if across < down:
        fitted = (canvas[0], min(math.ceil(height * across), canvas[1]))
    else:
        fitted = (min(math.ceil(width * down), canvas[0]), canvas[1])
    padded = Image.new("RGB", canvas, (0, 0, 0))
    offset = ((canvas[0] - fitted[0]) // 2, (canvas[1] - fitted[1]) // 2)
    padded.paste(image.resize(fitted, Image.Resampling.BICUBIC), offset)
    corners = [(x, y) for y in range(0, canvas[1], side) for x in range(0, canvas[0], side)]
    whole = image.resize((side, side), Image.Resampling.BICUBIC)
    return [whole, *(padded.crop((x, y, x + side, y + side)) for x, y in corners)]


def unpadded(size: Size, grid: Size, *, rounded: bool = False) -> Size:
    """Return columns and rows of the feature map that show the image and not the border.

    Args:
        size: of the image in pixels.
        grid: columns and rows of the whole map, border included.
        rounded: as transformers computes it, with floating-point noise rounded away; the official code cuts off.
    """
    (width, height), (columns, rows) = size, grid
    wide = width / height > columns / rows
    exact = height * (columns / width) if wide else width * (rows / height)
    seen = int(round(exact, 7) if rounded else exact)
    border = ((rows if wide else columns) - seen) // 2
    return (columns, rows - 2 * border) if wide else (columns - 2 * border, rows)


def shown_in(size: Size, resolutions: Sequence[Size], side: int, patches: int, *, rounded: bool = True) -> Size:
    """Return columns and rows of an image's feature map without its border.

    Args:
        size: of the image in pixels.
        resolutions: allowed canvases.
        side: of a tile in pixels.
        patches: along one side of a tile.
        rounded: see `unpadded`.
    """
    canvas = best_resolution(size, resolutions)
    return unpadded(size, (canvas[0] // side * patches, canvas[1] // side * patches), rounded=rounded)


def packed_length(n_base: int, shown: Size) -> int:
    """Return the visual tokens of an image: the squashed tile's, then each row of the map with a newline at its end."""
    return n_base + shown[1] * (shown[0] + 1)


def newline_offsets(n_base: int, shown: Size) -> list[int]:
    """Return where the newlines stand among an image's visual tokens."""
    columns, rows = shown
    return [n_base + row * (columns + 1) + columns for row in range(rows)]


def size_for_transformers(size: Size, resolutions: Sequence[Size], side: int, patches: int) -> Size:
    """Return the image size with which transformers' model packs as the official code does with the real one.

    They are the same but where the official code's cut-off number is a whole one spoilt by floating-point noise; then a
    neighbouring size does the same with transformers' rounding.

    Args:
        size: of the image in pixels.
        resolutions: allowed canvases.
        side: of a tile in pixels.
        patches: along one side of a tile.
    """

    def packing(of: Size, rounded: bool) -> tuple[Size, Size]:
        return best_resolution(of, resolutions), shown_in(of, resolutions, side, patches, rounded=rounded)

    official = packing(size, rounded=False)
    width, height = size
    neighbours = (size, (width, height - 1), (width - 1, height), (width + 1, height), (width, height + 1))
    for candidate in neighbours:
        if min(candidate) > 0 and packing(candidate, rounded=True) == official:
            return candidate
    return size


def pairs(folder: Path, listed: Any) -> list[Size]:
    """Return the pairs of a checkpoint's `image_grid_pinpoints`, a list or (in old files) the text of one.

    Raises:
        CheckpointError: it is no list of pairs.
    """
    try:
        found = ast.literal_eval(listed) if isinstance(listed, str) else listed
        return [(int(a), int(b)) for a, b in found]
    except (TypeError, ValueError, SyntaxError) as error:
        raise CheckpointError(
            f"{folder}: image_grid_pinpoints {listed!r} is not a list of pairs such as [[336, 672], [672, 336]]."
        ) from error
