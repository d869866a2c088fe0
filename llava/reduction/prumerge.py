"""LLaVA-PruMerge and PruMerge+: patches with outlying [CLS] attention absorb their neighbours, a last token the rest.

Source: "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", arXiv:2403.15388; official
code, the advanced and the advanced-plus function (attention and keys of the tower's last layer, one softmax over the
full width, un-normalised sums).
Differences from the official code: batches image by image; at least one centre; a grid step below 1 is 1 (an error
there); fewer than 32 other tokens are all neighbours; ties broken by the lower index.

How it selects:
1. The attention of [CLS] to every patch in block `layer`: one softmax of the full-width product of query and keys.
2. Centres: patches whose attention is an outlier, more than `factor` interquartile ranges above the third quartile; or
   a fixed number of the most attended. PruMerge+ adds the points of a uniform grid, the denser the more outliers.
3. Each centre takes in its `neighbours` most similar tokens (cosine of keys), weighted by their attention.
4. One more token is the attention-weighted sum of all that are no centres. Tokens go on by attention, not by place.

When not to use it: where reading order matters, as for text in the image, since tokens go on in another; where the
number of tokens must be known beforehand, unless with a `keep`; with vision towers that have no [CLS] token; with a
tower whose last block was never trained, since that is the one read (give layer=-2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import LlavaError
from llava.reduction.base import RENUMBERED
from llava.reduction.calibration import Calibration
from llava.reduction.checks import option
from llava.reduction.image import TOWER, BeforeLLM, ImageState, Kept
from llava.reduction.ranking import best_first
from llava.reduction.registry import register
from llava.reduction.tensors import to_device
from llava.reduction.tiles import quotas

OFFICIAL, EXACT = "official", "exact"
NORM_EPS = 1e-12
ADAPTIVE_GRID_SHARE = 3  # PruMerge+ samples the grid three times as densely as there are outliers


@register("prumerge")
@dataclass(frozen=True)
class PruMerge(BeforeLLM):
    """Merge into the patches with outlying [CLS] attention, before the projector.

    Tokens go on in descending order of attention, the extra token last; with crops tile by tile, thumbnail first, all
    of every tile, without newlines.

    Args:
        keep: None as in the paper: every tile keeps as many as it has outliers. Otherwise a fixed number of visual
            tokens per image, shared evenly by its tiles; or a fraction in (0, 1] of each tile's tokens.
        positions: only "renumbered": merged tokens stand nowhere special.
        neighbours: tokens each centre absorbs.
        factor: interquartile ranges above the third quartile that make an outlier.
        layer: block of the vision tower whose queries and keys are read, 0-based or from the end.
        budget: of a fixed number. "official": that many centres, and the extra token on top; "exact": with it.

    Raises:
        UnsupportedModel: the tower has no [CLS] token (on use).
    """

    keep: int | float | None = None  # type: ignore[assignment]  # None is one value more
    neighbours: int = option(32, low=0)
    factor: float = option(1.5, low=0)
    layer: int = -1
    budget: str = option(OFFICIAL, choices=(OFFICIAL, EXACT))

    paper: ClassVar[str] = "arXiv:2403.15388"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    score_name: ClassVar[str] = "attention of [CLS]"
    calibration: ClassVar[Calibration | None] = Calibration("factor", 1e-3, 30.0, rises=False)
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "adaptive": {"keep": None},
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 1 / 9},  # LLaVA-NeXT: 64 centres of each tile's 576
    }

    def problems(self) -> list[str]:
        if self.positions == RENUMBERED:
            return []
        return ["positions='original' is not possible: merged tokens stand nowhere. Use 'renumbered'."]

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.layer,)

    def asked(self, n_visual: int) -> int:
        return n_visual if self.keep is None else super().asked(n_visual)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        if self.keep is None or (n_tiles > 1 and isinstance(self.keep, float)):
            return None
        return min(n_visual, sum(self._delivered(count) for count in quotas(self.keep, n_tiles, n_visual)))

    def scores(self, image: ImageState) -> Tensor:
        layer = image.layer(self.layer)
        return cls_scores(layer.queries()[:, 0], layer.keys())  # (T, N)

    def select_image(self, image: ImageState) -> Kept:
        if image.tiles.tower is None:
            raise LlavaError("The vision tower was not read, so there is nothing to merge.")
        keys, features = image.layer(self.layer).keys(), image.tiles.tower[:, 1:]  # (T, 1 + N, C), (T, N, C)
        scores = self.scores(image)
        if self.keep is None:  # one wait: how many tokens go on has to be known
            counts = count_outliers(scores, self.factor).clamp_min(1).tolist()
        else:
            counts = quotas(self.keep, *scores.shape)
        merged, sources, nowhere = [], [], to_device([-1], scores.device)
        for tile, count in enumerate(counts):
            if self._delivered(count):
                centres = self._centres(scores[tile], count)
                merged.append(merge(features[tile], scores[tile], keys[tile, 1:], centres, self.neighbours))
                sources += [tile * scores.shape[1] + centres, nowhere]
        return Kept(values=torch.cat(merged), space=TOWER, sources=torch.cat(sources))

    def _delivered(self, count: int) -> int:
        """Tokens of a tile that go on when `count` are asked."""
        return count + (self.budget == OFFICIAL)

    def _centres(self, scores: Tensor, count: int) -> Tensor:
        """Centres of one tile: as many as there are outliers, or what a fixed `count` of tokens allows."""
        adaptive = self.keep is None or self.budget == OFFICIAL
        return best_first(scores, count if adaptive else count - 1)


@register("prumerge_plus")
@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with the points of a uniform grid as further centres.

    Args:
        keep: see `PruMerge`. A fixed number is divided by two: as many outliers as points of the grid.
        budget: of a fixed number. "official": the extra token comes on top, and a patch that is both an outlier and a
            point of the grid goes on twice, as released; "exact": no patch twice, exactly `keep` tokens.
        positions, neighbours, factor, layer: see `PruMerge`.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = PruMerge.presets

    def _delivered(self, count: int) -> int:
        return 2 * max(1, count // 2) + 1 if self.budget == OFFICIAL else count

    def _centres(self, scores: Tensor, count: int) -> Tensor:
        if self.keep is None:
            return add_adaptive_grid(scores, count)
        if self.budget == OFFICIAL:
            return add_fixed_grid(scores, max(1, count // 2))
        return add_distinct_grid(scores, (count - 1) // 2, count - 1 - (count - 1) // 2)


def cls_scores(query_cls: Tensor, keys: Tensor) -> Tensor:
    """Attention of [CLS] to the patches: one softmax over all tokens, heads not separated.

    Args:
        query_cls: (..., C) query of [CLS], unscaled.
        keys: (..., 1 + N, C) keys, [CLS] first.

    Returns:
        (..., N) probabilities, the one of [CLS] itself left out.
    """
    logits = (query_cls[..., None, :] @ keys.transpose(-1, -2)).squeeze(-2) / query_cls.shape[-1] ** 0.5
    return logits.softmax(-1)[..., 1:]


def count_outliers(scores: Tensor, factor: float = 1.5) -> Tensor:
    """How many scores exceed the third quartile by more than `factor` interquartile ranges: (..., N) -> (...)."""
    scores = scores.float()
    low, high = (scores.quantile(q, dim=-1, keepdim=True) for q in (0.25, 0.75))
    return (scores > high + factor * (high - low)).sum(-1)


def add_adaptive_grid(scores: Tensor, n_outliers: int) -> Tensor:
    """PruMerge+, adaptive: the outliers, then those points of a uniform grid that are not among them.

    Returns:
        (M,) centres; the last patch is never a grid point.
    """
    n = len(scores)
    step = max(1, int(int(n / n_outliers) / ADAPTIVE_GRID_SHARE))
    outliers = best_first(scores, n_outliers)
    grid = torch.arange(0, n - 1, step, device=scores.device)
    return torch.cat([outliers, grid[~torch.isin(grid, outliers)]])


def add_fixed_grid(scores: Tensor, n_outliers: int) -> Tensor:
    """PruMerge+, fixed ratio: the outliers, then as many points of a uniform grid; a patch may be in both, as released.

    Returns:
        (2 * n_outliers,) centres.
    """
    n = len(scores)
    step = int(n / n_outliers)
    grid = list(range(int(step / 2), n - 1, step))
    if len(grid) != n_outliers:  # the release needs a step that divides well
        grid = [int((i + 0.5) * n / n_outliers) for i in range(n_outliers)]
    return torch.cat([best_first(scores, n_outliers), to_device(grid, scores.device)])


def add_distinct_grid(scores: Tensor, n_outliers: int, n_grid: int) -> Tensor:
    """The outliers, then `n_grid` patches spread evenly over all the others; no patch twice."""
    outliers = best_first(scores, n_outliers)
    others = _complement(outliers, len(scores), len(scores) - n_outliers)
    spread = [int((i + 0.5) * len(others) / n_grid) for i in range(n_grid)]
    return torch.cat([outliers, others[to_device(spread, scores.device)]])


def merge(features: Tensor, scores: Tensor, keys: Tensor, centres: Tensor, neighbours: int = 32) -> Tensor:
    """Add to each centre its nearest tokens, weighted by attention, and append the weighted sum of the rest.

    Args:
        features: (N, C) patches.
        scores: (N,) attention of [CLS].
        keys: (N, C') keys of the patches.
        centres: (M,) patch indices, in the order of delivery; with repetitions the smallest indices outside are lost
            and a repeated patch is its own first neighbour, as released.
        neighbours: tokens each centre absorbs (they may be centres too).

    Returns:
        (M + 1, C): centres, then the extra token; in the dtype of `features`.
    """
    n, m = len(features), len(centres)
    rest = _complement(centres, n, max(n - m, 0))
    listed = torch.cat([centres, rest])  # candidates of every centre, but for its own place in the list
    unit = keys / keys.norm(dim=-1, keepdim=True).clamp_min(NORM_EPS)
    similarity = unit[centres] @ unit[listed].T  # (M, M + rest)
    similarity.diagonal().fill_(-torch.inf)
    nearest = listed[best_first(similarity, min(neighbours, len(listed) - 1))]
    weights = torch.zeros(m, n, dtype=scores.dtype, device=scores.device)
    weights.scatter_add_(1, nearest, scores[nearest])
    kind = torch.promote_types(features.dtype, scores.dtype)
    merged = features[centres] + weights.to(kind) @ features.to(kind)
    extra = scores[rest].to(kind) @ features[rest].to(kind)
    return torch.cat([merged, extra[None]]).to(features.dtype)


def _complement(indices: Tensor, n: int, count: int) -> Tensor:
    """The `count` largest of 0 .. n - 1 that are not in `indices`, ascending."""
    inside = torch.zeros(n, dtype=torch.int8, device=indices.device).index_fill_(0, indices, 1)
    outside_last = inside.argsort(descending=True, stable=True)
    return outside_last[n - count :]
