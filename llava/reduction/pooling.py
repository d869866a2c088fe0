"""Average pooling: neighbouring tokens are averaged into one; a baseline that merges without looking.

Source: no paper; the baseline every merging must beat. The grid of patches is cut into as many cells as tokens are to
be left (`llava.reduction.cells`; each patch counts in exactly one), and each cell becomes the mean of its projected
tokens. Tokens that stand in no plain grid (tiles, videos) are averaged along the prompt.
Differences from the official code: there is no official code.

How it selects: it does not look at the tokens. The grid is cut into `keep` cells of nearly equal size, and the mean of
a cell's projected tokens goes on in the place of its middle token.

When not to use it: for print and other details smaller than a cell, which the mean washes out; it is a baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.reduction.cells import cells
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.registry import register
from llava.reduction.tensors import to_device


@register("pooling")
@dataclass(frozen=True)
class Pooling(BeforeLLM):
    """Average the tokens of each of `keep` equal cells of the image.

    Args:
        keep: see `BeforeLLM`.
        positions: see `BeforeLLM`; with "original" a mean stands at the middle token of its cell.
    """

    paper: ClassVar[str] = "baseline, no paper"
    depends_on_question: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 320},
    }

    def select_image(self, image: ImageState) -> Kept:
        count, grid = self.asked(image.n_visual), image.grid or (1, image.n_visual)
        values, middles = cell_means(image.features, count, *grid)
        return Kept(middles, values)


def cell_means(tokens: Tensor, count: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Average tokens cell by cell.

    Args:
        tokens: (rows * columns, D), row by row.
        count: cells.
        rows, columns: of the grid.

    Returns:
        (count, D) means, summed in single precision, and (count,) ascending indices of the cells' middle tokens, whose
        order the means have.
    """
    cut = sorted(cells(count, rows, columns), key=lambda cell: _middle(cell, columns))
    weights = torch.zeros(count, rows, columns)
    for number, (top, bottom, left, right) in enumerate(cut):
        weights[number, top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
    weights = to_device(weights.flatten(1), tokens.device, torch.float32)
    middles = to_device([_middle(cell, columns) for cell in cut], tokens.device)
    return (weights @ tokens.float()).to(tokens.dtype), middles


def _middle(cell: tuple[int, int, int, int], columns: int) -> int:
    top, bottom, left, right = cell
    return (top + bottom - 1) // 2 * columns + (left + right - 1) // 2
