"""FiCoCo-V: in the upper blocks of the vision tower, find redundant tokens, find what they resemble, merge them there.

Source: "Filter, Correlate, Compress: Training-Free Token Reduction for MLLM Acceleration", arXiv:2411.17686; official
code (filter, correlate and compress functions) under variant "official", whose unintended turns are kept: a score
buffer that outlives layers, targets that index the re-ordered sequence, a [CLS] that moves. Variant "clean" is what the
paper describes.
Differences from the official code: grids and towers of other sizes; the buffer is an object of its own; ties broken by
the lower index.

How it selects: in every block above `control_encoding_layer`, between attention and MLP, from the attention logits
before the softmax (mean over heads):
1. Filter: a token scores beta times its logit from [CLS] minus (1 - beta) times its mean logit to the patches, both
   normalised. In each window of the patch grid the lowest score is made lower still; the r lowest are removed.
2. Correlate: a removed token is assigned to the few it attends to most, those above a quantile of its row.
3. Compress: it is added to them in proportion to that attention, and each sum is divided by its weights.

When not to use it: with vision towers that have no [CLS] token; where tokens have to stay in reading order (variant
"official" delivers them by score); for throughput with large batches or many crops, since tiles are encoded one at a
time; in towers of few blocks, since each removes at most half of its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction.blockmerge import BlockMerging, exact_schedule, limited
from llava.reduction.checks import option, private
from llava.reduction.image import ONE_TILE, ImageState, Kept, TowerInfo, TowerLayer
from llava.reduction.registry import register

OFFICIAL, CLEAN = "official", "clean"
NORM_EPS = 1e-12
UNSEEN = 1e9  # what a cell of the buffer holds before its first score


@dataclass
class Compression:
    """What FiCoCo-V remembers during one pass of the tower.

    Args:
        removals: tokens to remove, by block.
        buffer: scores by grid cell; only the official variant looks at it.
        cells: (S,) grid cell of every token, [CLS] being -1.
    """

    removals: dict[int, int]
    buffer: ScoreBuffer
    cells: Tensor


@register("ficoco_v")
@dataclass(frozen=True)
class FiCoCoV(BlockMerging):
    """Filter, correlate and compress in the upper half of the vision tower, one tile at a time.

    Args:
        keep, positions: see `BlockMerging`.
        r: tokens removed per block instead of `keep`; the release has 42, which leaves 114 of 576 in a tower of 24.
        control_encoding_layer: blocks above it compress; None: the upper half of the tower (11 of 24 as released), and
            more blocks if `keep` cannot be reached by halving there.
        beta: weight of the [CLS] similarity against redundancy.
        window: side of the windows of the patch grid in which the most redundant token is penalised.
        penalty: factor that makes its score smaller.
        quantile: of a row of logits, above which tokens are correlated.
        variant: "official": what the release computes, unintended turns included; "clean": what the paper describes.
        shared: a `ScoreBuffer` to be used for all images in turn, as the released process does; None: a fresh one per
            tile, which equals the release on its first image.

    Raises:
        ConfigurationError: the tower has too few blocks to reach `keep` by halving (on use).
        UnsupportedModel: the tower has no [CLS] token (on use).
    """

    control_encoding_layer: int | None = option(None, low=-1)
    beta: float = option(0.35, low=0)
    window: int = option(2, low=1)
    penalty: float = option(2.0, low=1)
    quantile: float = option(0.998, low=0)
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))
    shared: ScoreBuffer | None = private(None)

    paper: ClassVar[str] = "arXiv:2411.17686"
    needs_cls: ClassVar[bool] = True
    alone: ClassVar[str] = ONE_TILE
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {"r": 42},
        **BlockMerging.presets,
    }

    def problems(self) -> list[str]:
        problems = super().problems()
        for name in ("beta", "quantile"):
            if getattr(self, name) > 1:
                problems.append(f"{name}={getattr(self, name)!r} is too large: it lies in [0, 1].")
        return problems

    def encoder_layers(self, tower: TowerInfo) -> tuple[int, ...]:
        return tuple(self._removals(tower))

    def begin(self, tower: TowerInfo) -> Compression:
        if self.shared is not None and self.shared.side != tower.side:
            raise ConfigurationError(
                f"The shared score buffer has a grid of {self.shared.side}, the tower one of {tower.side}: "
                f"give ScoreBuffer({tower.side})."
            )
        buffer = ScoreBuffer(tower.side, tower.device) if self.shared is None else self.shared
        return Compression(self._removals(tower), buffer, torch.arange(-1, len(buffer.cells), device=tower.device))

    def merge(self, memory: Compression, layer: TowerLayer, hidden: Tensor) -> Tensor:
        logits = mean_logits(layer.queries()[0].float() * layer.scaling, layer.keys()[0], layer.heads)
        r, tokens = memory.removals[layer.number], hidden[0]
        if self.variant == OFFICIAL:
            filtered = filter_tokens(logits, r, memory.buffer, self.beta, self.window, self.penalty)
            memory.cells = memory.cells[filtered.left]
            return compress(tokens, filtered, *correlate(logits, filtered.removed, self.quantile))[None]
        side = memory.buffer.side
        filtered = filter_clean(logits, r, memory.cells[1:], side, self.beta, self.window, self.penalty)
        memory.cells = memory.cells[filtered.left]
        return compress_clean(tokens, logits, filtered, self.quantile)[None]

    def select_image(self, image: ImageState) -> Kept:
        memories = image.memory if isinstance(image.memory, list) else [image.memory]
        cells = torch.stack([memory.cells[1 : 1 + image.tiles.features.shape[1]] for memory in memories])
        first = (len(memories[0].buffer.cells) * torch.arange(len(cells), device=cells.device))[:, None]
        sources = torch.where(cells < 0, cells, first + cells)
        return Kept(values=image.tiles.features.flatten(0, 1), sources=sources.flatten())

    def _removals(self, tower: TowerInfo) -> dict[int, int]:
        """Tokens to remove, by block. A block never removes more than half: targets could not be told apart."""
        n = tower.side[0] * tower.side[1]
        start = self.control_encoding_layer
        first = tower.n_layers // 2 if start is None else start + 1
        schedule: list[int] | None
        if self.r is not None:
            schedule = limited([self.r] * max(tower.feature_layer + 1 - first, 0), n, 0)
        else:
            keep = self.kept_per_tile(tower)
            schedule = exact_schedule(tower.feature_layer + 1 - first, n, max(n - keep, 0), 0)
            while schedule is None and start is None and first > 0:
                first -= 1
                schedule = exact_schedule(tower.feature_layer + 1 - first, n, n - keep, 0)
            if schedule is None:
                raise ConfigurationError(
                    f"keep={keep} of {n} tokens per tile cannot be reached in {tower.feature_layer + 1 - first} layers "
                    "of the vision tower, of which each removes at most half: give a larger keep or a smaller "
                    "control_encoding_layer."
                )
        removals = {first + layer: r for layer, r in enumerate(schedule) if r > 0}
        if self.shared is not None and schedule:  # later blocks change nothing but the scores for the next image
            removals.update(dict.fromkeys(range(tower.feature_layer + 1, tower.n_layers), schedule[-1]))
        return removals


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
