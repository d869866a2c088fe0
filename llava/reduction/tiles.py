"""Images cut into tiles: a thumbnail and a grid of crops, how crops make one canvas, and what of it is padding.

A tile has `side` = (h, w) tokens, row-major. Crops are numbered row-major over `grid` = (rows, columns); together they
make a canvas of (rows * h, columns * w) tokens.
"""

import torch
from torch import Tensor


def on_canvas(
    grid: tuple[int, int], side: tuple[int, int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Where the tokens of all crops lie on the canvas: row and column, each (crops, h * w)."""
    crop_row, row, crop_column, column = torch.meshgrid(
        *(torch.arange(n, device=device) for n in (grid[0], side[0], grid[1], side[1])), indexing="ij"
    )
    rows, columns = crop_row * side[0] + row, crop_column * side[1] + column
    return tuple(x.transpose(1, 2).reshape(grid[0] * grid[1], side[0] * side[1]) for x in (rows, columns))


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
