"""FiCoCo-V: in the upper blocks of the vision tower, find redundant tokens, find what they resemble, merge them there.

Source: "Filter, Correlate, Compress: Training-Free Token Reduction for MLLM Acceleration", arXiv:2411.17686; official
code (filter, correlate and compress functions) under variant "official", whose unintended turns are kept: a score
buffer that outlives layers, targets that index the re-ordered sequence, a [CLS] that moves. Variant "clean" is what the
paper describes.
Differences from the official code: grids and towers of other sizes; the buffer is an object of its own; ties broken by
the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NORM_EPS = 1e-12
UNSEEN = 1e9  # what a cell of the buffer holds before its first score


def mean_logits(query: Tensor, key: Tensor, n_heads: int) -> Tensor:
    """Attention logits before the softmax, mean over heads.

    Args:
        query: (T, heads * d), scaled by d ** -0.5; key: (T, heads * d); heads flattened.

    Returns:
        (T, T) float32.
    """
    return query.float() @ key.float().T / n_heads


class ScoreBuffer:
    """Last score seen in each cell of the patch grid; infinite once a cell was the most redundant of its window.

    Args:
        side: (h, w) of the grid.
    """

    def __init__(self, side: tuple[int, int], device: torch.device | None = None):
        self.side = side
        self.cells = torch.empty(side[0] * side[1], device=device)
        self.reset()

    def reset(self) -> None:
        """Forget everything, as before the first image."""
        self.cells.fill_(UNSEEN)

    def write(self, scores: Tensor) -> None:
        """Put the i-th score into the i-th cell that is not infinite; scores or cells left over are ignored."""
        free = self.cells.isinf().to(torch.int8).argsort(stable=True)  # free cells first, ascending
        n = min(len(free), len(scores))
        values = torch.where(self.cells[free[:n]].isinf(), self.cells[free[:n]], scores[:n])
        self.cells = self.cells.scatter(0, free[:n], values)

    def window_minima(self, window: int) -> Tensor:
        """The cell of smallest value of each window, the lowest cell on ties: (windows,)."""
        return _window_minima(self.cells.view(self.side), window)


def redundancy(logits: Tensor, beta: float = 0.35) -> Tensor:
    """Score of each token but the first, low = redundant: [CLS] similarity against mean similarity to the others.

    Args:
        logits: (T, T), position 0 nominally [CLS].
        beta: weight of the [CLS] similarity.

    Returns:
        (T - 1,).
    """
    attended, similar = logits[0, 1:], logits[1:, 1:].mean(1)
    attended, similar = (part / part.norm().clamp_min(NORM_EPS) for part in (attended, similar))
    return beta * attended - (1 - beta) * similar


def penalised(scores: Tensor, factor: float) -> Tensor:
    """Scores made smaller: positive ones divided by the factor, the others multiplied."""
    return torch.where(scores > 0, scores / factor, scores * factor)


@dataclass(frozen=True)
class Filtered:
    """Positions of one layer: `removed` (r,) in ascending score, `left` (T - r,) in the order of delivery."""

    removed: Tensor
    left: Tensor


def filter_tokens(
    logits: Tensor, r: int, buffer: ScoreBuffer, beta: float = 0.35, window: int = 2, penalty: float = 2.0
) -> Filtered:
    """Official filter: the r lowest scores go, those that are smallest in their window of the buffer first.

    Args:
        logits: (T, T) from `mean_logits`.
        r: tokens to remove.
        buffer: changed in place.
        beta, window, penalty: see `FiCoCoV`.
    """
    scores = redundancy(logits, beta)
    n = len(scores)
    buffer.write(scores)
    cells = buffer.window_minima(window)
    # Cell numbers are taken for token numbers, as released; cells beyond the tokens are left alone.
    hit = torch.zeros(max(n, len(buffer.cells)), dtype=torch.bool, device=scores.device)
    hit = hit.index_fill_(0, cells, True)
    hit[n:] = False
    scores = torch.where(hit[:n], penalised(scores, penalty), scores)
    buffer.cells = buffer.cells.masked_fill(hit[: len(buffer.cells)], torch.inf)
    order = torch.cat([scores.new_full((1,), torch.inf), scores]).argsort(stable=True)  # position 0 is never removed
    return Filtered(order[:r], order[r:])


def correlate(logits: Tensor, removed: Tensor, quantile: float = 0.998) -> tuple[Tensor, Tensor]:
    """What removed tokens resemble: the columns of largest attention, as many as the fullest row has outliers.

    Args:
        logits: (T, T) from `mean_logits`.
        removed: (r,) positions.
        quantile: of a row's logits; columns strictly above it count.

    Returns:
        targets (r, k) positions and weights (r, k) that sum to 1. k depends on the values (one wait for the device).
    """
    rows = logits[removed]
    bound = rows.quantile(quantile, dim=1, keepdim=True)
    k = int((rows > bound).sum(1).max())
    values, targets = rows.softmax(1).topk(k, dim=1)
    return targets, values / values.sum(1, keepdim=True)


def compress(tokens: Tensor, filtered: Filtered, targets: Tensor, weights: Tensor) -> Tensor:
    """Official compress: weighted sums into the sequence that is left, whose order the targets ignore, as released.

    Args:
        tokens: (T, C); targets, weights: (r, k).

    Returns:
        (T - r, C) in the order of `filtered.left`.
    """
    r, length = len(filtered.removed), len(filtered.left)
    if targets.shape[1] == 0:
        return tokens[filtered.left]
    places = torch.where(targets >= length, targets - r, targets)
    weights = weights.to(tokens.dtype)
    spread = torch.zeros(length, r, dtype=tokens.dtype, device=tokens.device)
    spread.T.scatter_add_(1, places, weights)
    total = 1 + spread.sum(1, keepdim=True)
    return (tokens[filtered.left] + spread @ tokens[filtered.removed]) / total


def filter_clean(
    logits: Tensor,
    r: int,
    cells: Tensor,
    side: tuple[int, int],
    beta: float = 0.35,
    window: int = 2,
    penalty: float = 2.0,
) -> Filtered:
    """The paper's filter: true grid positions, live tokens only, nothing remembered; [CLS] stays at 0.

    Args:
        logits: (T, T).
        r: tokens to remove.
        cells: (T - 1,) grid cell of each token.
        side: (h, w) of the grid.
    """
    scores = redundancy(logits, beta)
    grid = scores.new_full((side[0] * side[1],), torch.inf).scatter(0, cells, scores)
    hit = torch.zeros_like(grid, dtype=torch.bool).index_fill_(0, _window_minima(grid.view(side), window), True)
    scores = torch.where(hit[cells], penalised(scores, penalty), scores)
    order = scores.argsort(stable=True) + 1
    left = torch.cat([order.new_zeros(1), order[r:].sort().values])
    return Filtered(order[:r], left)


def compress_clean(tokens: Tensor, logits: Tensor, filtered: Filtered, quantile: float = 0.998) -> Tensor:
    """The paper's merge: each removed token joins the kept patches it attends to most, weighted means.

    Args:
        tokens: (T, C); logits: (T, T).

    Returns:
        (T - r, C), [CLS] first, then kept patches in order.
    """
    patches = filtered.left[1:]
    rows = logits[filtered.removed][:, patches]
    bound = rows.quantile(quantile, dim=1, keepdim=True)
    chosen = (rows > bound) | (rows == rows.amax(1, keepdim=True))
    weights = rows.masked_fill(~chosen, -torch.inf).softmax(1).to(tokens.dtype)  # (r, kept patches)
    total = 1 + weights.sum(0)[:, None]
    merged = (tokens[patches] + weights.T @ tokens[filtered.removed]) / total
    return torch.cat([tokens[:1], merged])


def _window_minima(grid: Tensor, window: int) -> Tensor:
    """Lowest cell of smallest value of every window of a (h, w) grid; windows at the rim may be smaller."""
    (height, width), fill = grid.shape, torch.inf
    pad = (-width % window, -height % window)
    padded = torch.nn.functional.pad(grid, (0, pad[0], 0, pad[1]), value=fill)
    rows, columns = padded.shape[0] // window, padded.shape[1] // window
    blocks = padded.view(rows, window, columns, window).transpose(1, 2).reshape(rows * columns, -1)
    inside = blocks.argmin(1)
    block = torch.arange(rows * columns, device=grid.device)
    row, column = block // columns * window + inside // window, block % columns * window + inside % window
    return row * width + column
