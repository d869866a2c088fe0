"""The kept tokens over the image, as HTML: one SVG per picture the vision tower saw, one cell per visual token."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from llava.model.report import Report
from llava.report.overlay_boards import Board

JPEG_QUALITY, LARGEST_SIDE = 88, 672  # of the pictures in the page
MANY = 2  # more pictures than so many stand in rows of two
GONE = 'class="gone"'
SHADES = 99  # colours from the lowest to the highest score
NOTE = "Point at a patch or tap it."
Resize = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Fate:
    """What became of the visual tokens of one image.

    Args:
        gone: per token, the first decoder layer that does not see it; None: it stays to the end.
        scores: per token, the number by which it was ranked last; absent if it never was.
        score_name: what the numbers are.
        unplaced: tokens of the last layer that were merged and have no place of their own.
        mean: visual tokens per layer, mean over all decoder layers.
    """

    gone: list[int | None]
    scores: dict[int, float]
    score_name: str
    unplaced: int
    mean: float


def fate(report: Report) -> Fate:
    """Return what became of the first image of the first sample."""
    n_visual = report.visual[0]
    gone: list[int | None] = [None] * n_visual
    scores: dict[int, float] = {}
    name = ""
    for step in report.steps:
        left = set(step.indices[0][0].tolist())
        for token in range(n_visual):
            if gone[token] is None and token not in left:
                gone[token] = step.layer
        if step.scores is not None:
            name = step.score_name
            numbers = enumerate(step.scores[0][0].tolist())
            scores.update({token: number for token, number in numbers if math.isfinite(number)})
    placed = sum(layer is None for layer in gone)
    return Fate(gone, scores, name, max(report.final[0] - placed, 0), report.mean_over_layers[0])


def drawing(boards: Sequence[Board], known: Fate | None, resize: Resize | None = None) -> str:
    """Return the pictures of one column; each of several says how many of its own tokens are kept.

    Args:
        boards: what the vision tower was shown of the image.
        known: which tokens went where; None: only the picture.
        resize: rows, columns -> those of the smaller picture, for a method that makes the picture smaller.
    """
    parts = []
    for board in boards:
        rows, columns = board.tokens.shape
        shown = (rows, columns) if resize is None else resize(rows, columns)
        cells = [] if known is None or resize is not None else _cells(board, known, len(boards) > 1)
        name = f"<figcaption>{escape(board.name)}{_count(cells, len(boards))}</figcaption>" if board.name else ""
        parts.append(
            f'<figure><svg viewBox="0 0 {columns} {rows}" role="img" aria-label="{_label(known)}">'
            f'<image href="{_data_url(board.pixels)}" width="{shown[1]}" height="{shown[0]}" '
            f'preserveAspectRatio="none"/>{"".join(cells)}</svg>{name}</figure>'
        )
    many = " many" if len(boards) > MANY else ""
    return f'<div class="picture{many}">{"".join(parts)}</div>'


def _count(cells: Sequence[str], n_boards: int) -> str:
    """How many of a picture's tokens are kept, for a picture among several."""
    if n_boards < 2 or not cells:
        return ""
    return f' <b><span class="own">{sum(GONE not in cell for cell in cells)}</span> of {len(cells)}</b>'


def caption(boards: Sequence[Board], known: Fate | None, smaller: bool = False) -> str:
    """Return the line under the pictures, and the place where the page writes about the token pointed at.

    Tokens that have no cell of their own (class tokens, ends of rows) are told to the page's script, which counts.
    """
    if known is None:
        words = "&nbsp;"
    else:
        kept = sum(layer is None for layer in known.gone)
        if smaller:
            words = f"<b>{kept + known.unplaced}</b> of {len(known.gone)} tokens"
        else:
            merged = f" + {known.unplaced} merged" if known.unplaced else ""
            count = f'<b class="seen-now" data-loose="{_loose(boards, known)}">{kept}</b>'
            words = f"{count}{merged} of {len(known.gone)} tokens"
        words += f"<span>mean {known.mean:.0f} per layer</span>"
    return f'<div class="seen">{words}</div><div class="token-note">{NOTE if known else ""}</div>'


def _loose(boards: Sequence[Board], known: Fate) -> str:
    """Of tokens without a cell: the layers that first do not see them; "-" for those that stay to the end."""
    placed = {int(token) for board in boards for token in board.tokens.flat}
    rest = [layer for token, layer in enumerate(known.gone) if token not in placed]
    return " ".join("-" if layer is None else str(layer) for layer in rest)


def _cells(board: Board, known: Fate, named: bool = False) -> list[str]:
    cells: list[str] = []
    shades = _shades(known)
    if not (board.tokens >= 0).any():
        return cells
    for (row, column), token in np.ndenumerate(board.tokens):
        if not 0 <= token < len(known.gone):
            continue
        layer = known.gone[token]
        words = [board.name] if named else []
        words.append(f"row {row + 1}, column {column + 1}")
        shade = ""
        if token in known.scores:
            words.append(f"{known.score_name} {known.scores[token]:.3g}")
            shade = f' data-s="{shades[token]}"' if token in shades else ""
        words.append("stays to the end" if layer is None else _leaving(layer))
        mark = "" if layer is None else f' data-d="{layer}" {GONE}'
        title = escape(" · ".join(words))
        cells.append(f'<rect x="{column}" y="{row}" width="1" height="1"{mark}{shade}><title>{title}</title></rect>')
    return cells


def _shades(known: Fate) -> dict[int, int]:
    """Of every token with a score: its colour, by rank, because most scores lie close together below the highest."""
    ranks = {score: rank for rank, score in enumerate(sorted(set(known.scores.values())))}
    last = len(ranks) - 1
    return {token: round(SHADES * ranks[score] / last) for token, score in known.scores.items()} if last > 0 else {}


def _leaving(layer: int) -> str:
    return "never enters the language model" if layer == 0 else f"leaves before layer {layer}"


def _label(known: Fate | None) -> str:
    if known is None:
        return "The image as the vision tower sees it"
    return f"Kept tokens: {sum(layer is None for layer in known.gone)} of {len(known.gone)}"


def _data_url(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
