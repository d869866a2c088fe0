"""Smaller image: the vision tower sees a smaller picture and so gives fewer tokens; the baseline that saves there too.

Source: no paper; what a user without any method would do. The prepared pixels are made smaller (bicubic, antialiased)
and the tower's position embeddings are interpolated to the smaller grid (bicubic, as transformers does for larger
images); every patch keeps its size in pixels. Enlarging the picture again before the tower would cost as much as the
original one and give as many tokens, so it is no alternative.
Differences from the official code: there is no official code.

How it selects: it does not; every token of the smaller picture goes on. The vision tower has fewer patches from its
first block on.

When not to use it: for details that vanish when the picture shrinks, as small print does; with a tower that was never
shown other sizes, the interpolated position embeddings alone may cost accuracy; with models that cut images into tiles,
whose number of tokens is set by other means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from llava.reduction.base import RENUMBERED
from llava.reduction.cells import shape_for
from llava.reduction.checks import option
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.registry import register

EXACT, SQUARE = "exact", "proportional"


@register("smaller_image")
@dataclass(frozen=True)
class SmallerImage(BeforeLLM):
    """Make the picture smaller before the vision tower.

    Args:
        keep: visual tokens left per image (count), or a fraction in (0, 1] of that image's tokens.
        positions: only "renumbered": no token of the large picture is left.
        shape: "exact": as many patches as asked, in the grid nearest to the picture's shape (192 as 12 rows of 16), the
            picture being squashed a little; where only a very oblong grid has that many, as "proportional": the picture
            keeps its shape and has at most as many patches as asked (169 for 192).
    """

    shape: str = option(EXACT, choices=(EXACT, SQUARE))

    stage: ClassVar[str] = "before the vision tower"
    paper: ClassVar[str] = "baseline, no paper"
    depends_on_question: ClassVar[bool] = False
    resizes: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {str(keep): {"keep": keep} for keep in (192, 128, 64)}

    def problems(self) -> list[str]:
        if self.positions == RENUMBERED:
            return []
        return ["positions='original' is not possible: no token of the large picture is left. Use 'renumbered'."]

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        side = math.isqrt(n_visual)
        if side * side != n_visual:
            return None
        rows, columns = self.resized(side, side)
        return rows * columns

    def resized(self, rows: int, columns: int) -> tuple[int, int]:
        return smaller_grid(self.asked(rows * columns), rows, columns, exact=self.shape == EXACT)

    def select_image(self, image: ImageState) -> Kept:
        return Kept(values=image.features)


def smaller_grid(count: int, rows: int, columns: int, exact: bool) -> tuple[int, int]:
    """Rows and columns of the smaller picture.

    Args:
        count: patches to be had.
        rows, columns: of the large picture.
        exact: exactly `count` patches if a grid not more than twice as oblong has them; else the picture's shape, and
            as many patches as fit.
    """
    regular = shape_for(count, rows, columns) if exact else None
    if regular:
        return regular
    scale = math.sqrt(count / (rows * columns))
    # The epsilon keeps 24 * sqrt(64 / 576) = 8 from becoming 7.999...
    down = max(1, min(rows, int(rows * scale + 1e-9)))
    return down, max(1, min(columns, count // down, int(columns * scale + 1e-9)))
