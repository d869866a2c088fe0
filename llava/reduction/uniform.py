"""Uniform grid: keep tokens at regular distances; a baseline that looks at nothing.

Source: no paper; the baseline every selection must beat. The grid of patches is cut into as many cells as tokens are to
be left (`llava.reduction.cells`), and the token nearest to the middle of each cell stays. Tokens that stand in no plain
grid (tiles, videos) are taken at equal distances along the prompt.
Differences from the official code: there is no official code.

How it selects: it does not look at the tokens. The grid is cut into `keep` cells of nearly equal size, and the middle
token of each stays.

When not to use it: for details that fall between the points of the grid; it is a baseline.
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


@register("uniform")
@dataclass(frozen=True)
class Uniform(BeforeLLM):
    """Keep the middle token of each of `keep` equal cells of the image.

    Args:
        keep, positions: see `BeforeLLM`.
    """

    paper: ClassVar[str] = "baseline, no paper"
    depends_on_question: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 320},
    }

    def select_image(self, image: ImageState) -> Kept:
        grid = image.grid or (1, image.n_visual)
        return Kept(to_device(grid_indices(self.asked(image.n_visual), *grid), image.features.device))


def grid_indices(count: int, rows: int, columns: int) -> Tensor:
    """Return `count` ascending indices into a (rows, columns) grid, read row by row, spread evenly over it."""
    middles = [
        (top + bottom - 1) // 2 * columns + (left + right - 1) // 2
        for top, bottom, left, right in cells(count, rows, columns)
    ]
    return torch.tensor(middles).sort().values
