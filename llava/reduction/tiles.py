"""Images cut into tiles: a thumbnail and a grid of crops, how crops make one canvas, and what of it is padding.

A tile has `side` = (h, w) tokens, row-major. Crops are numbered row-major over `grid` = (rows, columns); together they
make a canvas of (rows * h, columns * w) tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.reduction.image import ImageState, Kept


def on_canvas(
    grid: tuple[int, int], side: tuple[int, int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Where the tokens of all crops lie on the canvas: row and column, each (crops, h * w)."""
    crop_row, row, crop_column, column = torch.meshgrid(
        *(torch.arange(n, device=device) for n in (grid[0], side[0], grid[1], side[1])), indexing="ij"
    )
    rows, columns = crop_row * side[0] + row, crop_column * side[1] + column
    n_crops, n = grid[0] * grid[1], side[0] * side[1]
    return rows.transpose(1, 2).reshape(n_crops, n), columns.transpose(1, 2).reshape(n_crops, n)


def stitch(crops: Tensor, grid: tuple[int, int], side: tuple[int, int]) -> Tensor:
    """Lay crops side by side and read the canvas row by row: (crops, h * w, ...) -> (crops * h * w, ...)."""
    rest = crops.shape[2:]
    laid = crops.view(*grid, *side, *rest).transpose(1, 2)
    return laid.reshape(-1, *rest)


def unpadded(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle of the canvas that shows the image, by LLaVA's rule for images centred on a padded canvas.

    Args:
        size: (height, width) of the original image, pixels.
        canvas: (height, width) of the canvas, tokens.

    Returns:
        (top, bottom, left, right), the ends excluded.
    """
    (height, width), (rows, columns) = size, canvas
    if width / height > columns / rows:
        margin = (rows - int(height * columns / width)) // 2
        return margin, rows - margin, 0, columns
    margin = (columns - int(width * rows / height)) // 2
    return 0, rows, margin, columns - margin


def image_mask(
    size: tuple[int, int], grid: tuple[int, int], side: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Tell image from padding: (crops, h * w) bool, True where the crop's token shows the image."""
    top, bottom, left, right = unpadded(size, (grid[0] * side[0], grid[1] * side[1]))
    rows, columns = on_canvas(grid, side, device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def reading_order(kept: Tensor, grid: tuple[int, int], side: tuple[int, int]) -> Tensor:
    """Kept tokens of all crops as the canvas is read: (crops, h * w) bool -> (K,) of crop * h * w + token."""
    number = torch.arange(kept.numel(), device=kept.device).view_as(kept)
    return stitch(number, grid, side)[stitch(kept, grid, side)]


def quotas(keep: int | float, n_tiles: int, n: int) -> list[int]:
    """Tokens each tile keeps.

    Args:
        keep: count per image, shared evenly by its tiles, the first ones taking the rest; or a fraction of each tile.
        n_tiles: tiles of the image, thumbnail included.
        n: tokens of a tile.
    """
    if isinstance(keep, float):
        return [max(1, int(n * keep))] * n_tiles
    share, rest = divmod(min(keep, n_tiles * n), n_tiles)
    return [share + (tile < rest) for tile in range(n_tiles)]


@dataclass(frozen=True)
class Crops:
    """How an image was cut: `grid` (rows, columns) of crops, `side` (h, w) tokens of each, `size` (height, width) of
    the original image in pixels."""

    grid: tuple[int, int]
    side: tuple[int, int]
    size: tuple[int, int]


def crops_of(image: ImageState) -> Crops | None:
    """The crops of an image; None if it is one tile."""
    tiles = image.tiles
    if tiles.grid is None or tiles.side is None or tiles.size is None:
        return None
    return Crops(tiles.grid, tiles.side, tiles.size)


def shown_tokens(image: ImageState) -> Tensor:
    """(T, N) bool, True at the tokens of the tiles that the unpruned model would get, i.e. not at padding."""
    n_tiles, n = image.tiles.features.shape[:2]
    if image.tiles.source is None:
        return torch.ones(n_tiles, n, dtype=torch.bool, device=image.features.device)
    # Newlines (-1) fall on one more cell, which is cut off.
    cells = torch.zeros(n_tiles * n + 1, dtype=torch.bool, device=image.features.device)
    return cells.index_fill_(0, image.tiles.source, True)[:-1].view(n_tiles, n)


def in_place(image: ImageState, kept: Tensor, newlines: bool = False, count: int | None = None) -> Kept:
    """Let kept tokens go on where the unpruned model has them.

    Args:
        kept: (T, N) bool; tokens at padding go all the same.
        newlines: whether the tokens that end rows go on too.
        count: how many that makes, if it is known, which spares a wait for the device.
    """
    source, kept = image.tiles.source, kept.flatten()
    chosen = kept if source is None else torch.where(source < 0, newlines, kept[source.clamp_min(0)])
    if count is None:
        return Kept(indices=chosen.nonzero().squeeze(1))
    return Kept(indices=(~chosen).to(torch.int8).argsort(stable=True)[:count])


def as_canvas(image: ImageState, kept: Tensor, count: int | None = None) -> Kept:
    """Let kept tokens go on thumbnail first, then row by row over the canvas, padding included, no newlines.

    Args:
        kept: (T, N) bool.
        count: how many it marks, if it is known.
    """
    crops = crops_of(image)
    if crops is None:
        return in_place(image, kept, count=count)
    n = kept.shape[1]
    sources = torch.cat([kept[0].nonzero().squeeze(1), n + reading_order(kept[1:], crops.grid, crops.side)])
    return Kept(values=image.tiles.features.flatten(0, 1)[sources], sources=sources)
