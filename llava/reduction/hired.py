"""HiRED: share a budget among thumbnail and crops by early [CLS] attention, fill each share by late [CLS] attention.

Source: "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models in
Resource-Constrained Environments", arXiv:2408.10945; official code, single-tile and tiled selection functions.
Differences from the official code: a mask per image of a batch (there the first image's is used for all), heads read
from the model, no voters (alpha = 1) means equal shares, ties broken by the lower index.

How it selects:
1. An image of one tile keeps the patches that [CLS] attends to most in block `layer`, summed over heads.
2. With crops the thumbnail gets `alpha` of the budget. The most attended 1 - alpha of its tokens, in block
   `allocation_layer`, vote for the crop they belong to, and the crops share the rest by votes.
3. Every tile fills its quota as in step 1; survivors go on in reading order, crops stitched together.

When not to use it: with vision towers that have no [CLS] token; with models of one tile, where it is the same as
FasterVLM; where a full budget counts, unless with budget="exact" (as released, truncation and padding lose some).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.reduction.checks import option
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.ranking import best_mask, share
from llava.reduction.registry import register
from llava.reduction.tiles import crops_of, in_place, shown_tokens

OFFICIAL, EXACT = "official", "exact"
BANDS, SPATIAL = "bands", "spatial"


@register("hired")
@dataclass(frozen=True)
class HiRED(BeforeLLM):
    """Select by late [CLS] attention; with tiles, after sharing the budget by early [CLS] attention.

    Args:
        keep: visual tokens left per image, all tiles together; or a fraction in (0, 1] of all its tiles' tokens.
        positions: see `BeforeLLM`.
        alpha: share of the thumbnail in the budget, in [0, 1]; no effect without crops.
        allocation_layer: block of the vision tower whose attention shares the budget among crops, 0-based.
        layer: block whose attention chooses; None: the one that feeds the projector.
        allocation: which part of the thumbnail votes for a crop: "bands", consecutive raster ranges as released, or
            "spatial", the region the crop shows.
        budget: matters for tiles only. "official": quotas are truncated, and tokens chosen at padding vanish, so fewer
            than `keep` go on; "exact": padding is left out and every token of the budget used.

    Newlines of tiled models do not go on, as released.

    Raises:
        UnsupportedModel: the tower has no [CLS] token (on use).
    """

    alpha: float = option(0.5, low=0)
    allocation_layer: int = 0
    layer: int | None = None
    allocation: str = option(BANDS, choices=(BANDS, SPATIAL))
    budget: str = option(OFFICIAL, choices=(OFFICIAL, EXACT))

    paper: ClassVar[str] = "arXiv:2408.10945"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    score_name: ClassVar[str] = "attention of [CLS], sum over heads"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 1 / 9},  # LLaVA-NeXT: of 2880 in five tiles
    }

    def problems(self) -> list[str]:
        return [f"alpha={self.alpha!r} is too large: it is a share in [0, 1], e.g. alpha=0.5."] * (self.alpha > 1)

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.allocation_layer, self.layer)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        known = n_tiles == 1 or (self.budget == EXACT and not isinstance(self.keep, float))
        return self.asked(n_visual) if known else None

    def scores(self, image: ImageState) -> Tensor:
        return image.layer(self.layer).cls_attention().sum(1)

    def select_image(self, image: ImageState) -> Kept:
        tiles = image.tiles
        n = tiles.features.shape[:2].numel()
        shown = shown_tokens(image)[1:] if self.budget == EXACT else None
        crops = crops_of(image)
        total = max(1, int(n * self.keep)) if isinstance(self.keep, float) else min(self.keep, n)
        mask = select_tokens(
            image.layer(self.layer).cls_attention(),
            image.layer(self.allocation_layer).cls_attention()[0],
            total=total,
            grid=(0, 0) if crops is None else crops.grid,
            side=(0, 0) if crops is None else crops.side,
            alpha=self.alpha,
            allocation=self.allocation,
            budget=self.budget,
            shown=shown,
        )
        return in_place(image, mask, count=total if crops is None else None)


def select_tokens(
    late: Tensor,
    early: Tensor | None = None,
    *,
    total: int,
    grid: tuple[int, int] = (0, 0),
    side: tuple[int, int] = (0, 0),
    alpha: float = 0.5,
    allocation: str = BANDS,
    budget: str = OFFICIAL,
    shown: Tensor | None = None,
) -> Tensor:
    """Mark the tokens of one image that survive.

    Args:
        late: (tiles, heads, N) softmax [CLS] rows over the patches, at the layer that yields the features.
        early: (heads, N) the thumbnail's rows at the allocation layer; with crops only.
        total: budget of the image, all tiles together.
        grid: (rows, columns) of crops; tile 0 is the thumbnail, the others are crops, row-major.
        side: (h, w) tokens of a tile; only allocation "spatial" needs it.
        alpha: share of the thumbnail, in [0, 1].
        allocation: "bands" as released: the thumbnail's voters are counted in consecutive raster ranges, one per
            crop; "spatial": in the region that the crop shows.
        budget: "official" truncates the crops' quotas, so a few tokens of the budget are lost; "exact" hands all out.
        shown: (crops, N) bool, False at padding, which then gets no token; None as released: padding competes.

    Returns:
        (tiles, N) bool.
    """
    scores = late.sum(1)
    tiles, n = scores.shape
    if early is None or tiles == 1:
        return best_mask(scores[:1], min(total, n))
    full = min(int(total * alpha), n)
    rest = min(total - full, (tiles - 1) * n)
    votes = count_votes(early.sum(0), grid, int(n * (1 - alpha)), allocation, side)
    limits = torch.full_like(votes, n) if shown is None else shown.sum(1)
    crops = scores[1:] if shown is None else scores[1:].masked_fill(~shown, -torch.inf)
    if budget == EXACT:
        quota = share(votes, rest, limits)
        full = min(total - int(quota.sum()), n)  # what padded crops cannot take
    else:
        wish = torch.where(votes.sum() > 0, votes, torch.ones_like(votes)).float()
        quota = torch.minimum((wish / wish.sum() * rest).int(), limits)
    return torch.cat([best_mask(scores[:1], full), best_mask(crops, quota)])


def count_votes(
    attention: Tensor, grid: tuple[int, int], voters: int, allocation: str = BANDS, side: tuple[int, int] = (0, 0)
) -> Tensor:
    """Votes of the thumbnail's most attended tokens for each crop.

    Args:
        attention: (N,) [CLS] attention of the thumbnail at the allocation layer.
        grid: (rows, columns) of crops.
        voters: how many tokens vote.
        allocation, side: see `select_tokens`.

    Returns:
        (crops,) integers.
    """
    voting = best_mask(attention[None], voters)[0]
    crops = grid[0] * grid[1]
    place = torch.arange(len(attention), device=attention.device)
    if allocation == BANDS:
        crop = place // (len(attention) // crops)
        crop = crop.clamp_max(crops - 1)
    else:
        row, column = place // side[1], place % side[1]
        crop = row * grid[0] // side[0] * grid[1] + column * grid[1] // side[1]
    return torch.zeros(crops, dtype=torch.long, device=attention.device).scatter_add_(0, crop, voting.long())
