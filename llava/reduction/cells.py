"""Cutting a grid of tokens into cells of nearly equal size, as many as tokens are to be left."""

from __future__ import annotations

import math

Cell = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

MOST_OBLONG = 2.0  # a regular partition is preferred if its cells are not more oblong than this


def shape_for(count: int, rows: int, columns: int, oblong: float = MOST_OBLONG) -> tuple[int, int] | None:
    """Rows and columns of a regular partition into exactly `count` cells; None if all of those are too oblong.

    Args:
        count: cells.
        rows, columns: of the grid.
        oblong: largest allowed ratio between the sides of a cell.
    """
    best, least = None, math.inf
    for down in range(1, min(count, rows) + 1):
        across = count // down
        if down * across != count or across > columns:
            continue
        ratio = (rows / down) / (columns / across)
        ratio = max(ratio, 1 / ratio)
        if ratio < least:
            best, least = (down, across), ratio
    return best if least <= oblong else None


def cells(count: int, rows: int, columns: int) -> list[Cell]:
    """Cut a grid into exactly `count` cells that do not overlap, row by row.

    A regular partition where there is one that is not too oblong, else bands that differ by one cell.

    Args:
        count: cells, from 1 to rows * columns.
        rows, columns: of the grid.
    """
    regular = shape_for(count, rows, columns)
    bands = regular[0] if regular else round(math.sqrt(count * rows / columns))
    bands = max(math.ceil(count / columns), min(bands, rows, count), 1)
    cut: list[Cell] = []
    for top, bottom, first, last in zip(*_ends(bands, rows), *_ends(bands, count), strict=True):
        cut += [(top, bottom, left, right) for left, right in zip(*_ends(last - first, columns), strict=True)]
    return cut


def _ends(parts: int, length: int) -> tuple[list[int], list[int]]:
    """Starts and ends of `parts` nearly equal stretches of `length`."""
    edges = [number * length // parts for number in range(parts + 1)]
    return edges[:-1], edges[1:]
