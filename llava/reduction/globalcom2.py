"""GlobalCom2: the thumbnail's [CLS] logits decide how many tokens each crop keeps, and help to decide which.

Source: "Global Compression Commander: Plug-and-Play Inference Acceleration for High-Resolution Large Vision-Language
Models", arXiv:2501.05179; official code, thumbnail, ratio and crop functions (logits before the softmax, kept tokens
written by their number among the un-padded ones).
Differences from the official code: several images per prompt and batches; the model's dtype throughout (there the crops
are cast to half); ties broken by the lower index.

How it selects:
1. Thumbnail: the share `keep` of its tokens with the largest [CLS] logits (before the softmax, mean over heads).
2. Crops: the thumbnail's logits, summed over the region of each crop and put through a softmax with temperature `tau`,
   raise the shares of some crops above those of others; the mean share is `keep`.
3. In every crop its own logits and the thumbnail's, resized to that place, are normalised and added; the best tokens
   go on, as many as its share allows. Padding never does, newlines always do.

When not to use it: with models that do not cut images into crops, where it is refused (variant "clean" then is one
top-k of [CLS] logits); with vision towers that have no [CLS] token; where exactly `keep` tokens must go on, unless with
budget="exact"; with a vision tower whose last block was never trained, since that is the one read (give `layer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction.base import RENUMBERED
from llava.reduction.checks import option
from llava.reduction.image import BeforeLLM, ImageState, Kept, TowerLayer
from llava.reduction.ranking import best_first, best_mask, share
from llava.reduction.registry import register
from llava.reduction.tiles import Crops, crops_of, image_mask, in_place, on_canvas, shown_tokens, unpadded

SUM_EPS = 1e-8
NORM_EPS = 1e-12
OFFICIAL, CLEAN = "official", "clean"
EXACT = "exact"


@register("globalcom2")
@dataclass(frozen=True)
class GlobalCom2(BeforeLLM):
    """Compress the crops of a tiled image under the thumbnail's command.

    Args:
        keep: fraction R in (0, 1] of every tile's tokens; or a count of tokens of all tiles together.
        positions: see `BeforeLLM`; "original" needs variant "clean".
        tau: temperature of the crops' shares, in sums of logits.
        layer: block of the vision tower whose [CLS] logits are read, 0-based or from the end.
        variant: "official": crops in the order of `deliver_crops`; an image without crops is not pruned, and models
            that know none are refused. "clean": thumbnail and crops in the order of the unpruned model, newlines where
            it has them; without crops the whole image is treated as the thumbnail.
        budget: "official": counts are truncated tile by tile, and newlines come on top; "exact": `keep` tokens go on,
            newlines included.

    Raises:
        ConfigurationError: budget "exact" is smaller than the number of newlines (on use).
        UnsupportedModel: the tower has no [CLS] token, or the model does not cut images into tiles (on use).
    """

    keep: int | float = 0.25
    tau: float = option(10.0, low=1e-3)
    layer: int = -1
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))
    budget: str = option(OFFICIAL, choices=(OFFICIAL, EXACT))

    paper: ClassVar[str] = "arXiv:2501.05179"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"320": {"keep": 1 / 9}, "25%": {"keep": 0.25}}

    def problems(self) -> list[str]:
        if self.positions == RENUMBERED or self.variant == CLEAN:
            return []
        return ["positions='original' needs variant='clean': the official variant moves tokens about."]

    @property
    def needs_tiles(self) -> bool:  # type: ignore[override]  # it depends on the variant
        """Whether the method has nothing to do in models that do not cut images into tiles."""
        return self.variant == OFFICIAL

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.layer,)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        asked = self.asked(n_visual)
        known = asked == n_visual or self.budget == EXACT or (n_tiles == 1 and self.variant == CLEAN)
        return asked if known else None

    def select_image(self, image: ImageState) -> Kept:
        logits, tiles = cls_logits(image.layer(self.layer)), image.tiles
        n = logits.numel()
        ratio = self.keep if isinstance(self.keep, float) else min(1.0, self.keep / n)
        crops = crops_of(image)
        if crops is None:
            if self.variant == OFFICIAL:
                return Kept(indices=torch.arange(image.n_visual, device=logits.device))
            count = min(self.asked(image.n_visual), n)
            return in_place(image, best_mask(logits, count), count=count)
        total = self._tokens(image, crops) if self.budget == EXACT else None
        choice = select_tokens(logits, crops.size, crops.grid, crops.side, ratio=ratio, tau=self.tau, total=total)
        if self.variant == CLEAN:
            thumbnail = torch.zeros_like(choice.crops[:1]).index_fill_(1, choice.thumbnail, True)
            return in_place(image, torch.cat([thumbnail, choice.crops]), newlines=True)
        order = deliver_crops(choice.crops, crops.size, crops.grid, crops.side)
        sources = torch.cat([choice.thumbnail, torch.where(order < 0, order, logits.shape[1] + order)])
        rows = tiles.features.flatten(0, 1)[sources.clamp_min(0)]
        if tiles.newline is None:  # a tiled model without newlines
            return Kept(values=rows[sources >= 0], sources=sources[sources >= 0])
        return Kept(values=torch.where((sources < 0)[:, None], tiles.newline.to(rows), rows), sources=sources)

    def _tokens(self, image: ImageState, crops: Crops) -> int:
        """What an exact budget leaves for tokens after the newlines."""
        asked, shown = self.asked(image.n_visual), int(shown_tokens(image).sum())
        newlines = crops.grid[0] * crops.side[0] if self.variant == OFFICIAL else image.n_visual - shown
        newlines *= image.tiles.newline is not None
        if asked < newlines:
            raise ConfigurationError(
                f"keep={self.keep} with budget='exact' is less than the {newlines} newline tokens of an image: give at "
                f"least keep={newlines}, or budget='official', which does not count them."
            )
        return min(asked - newlines, shown)


def cls_logits(layer: TowerLayer) -> Tensor:
    """[CLS] logits to the patches before the softmax, mean over heads: (T, N) float32."""
    query = layer.query[:, :, :1].float() * layer.scaling
    return (query @ layer.key.float().transpose(-1, -2)).mean(1)[:, 0, 1:]


def crop_ratios(
    thumbnail: Tensor, grid: tuple[int, int], side: tuple[int, int], ratio: float, tau: float = 10.0
) -> Tensor:
    """Share of its tokens each crop keeps: more where the thumbnail's logits are larger.

    Args:
        thumbnail: (h * w,) [CLS] logits of the thumbnail.
        grid: (rows, columns) of crops.
        side: (h, w) tokens of a tile.
        ratio: mean share, in (0, 1].
        tau: temperature of the softmax over crops.

    Returns:
        (crops,) float64 in (0, 1].
    """
    device = thumbnail.device
    row, column = (
        (torch.arange(length, device=device) // (length // parts)).clamp_max(parts - 1)
        for length, parts in zip(side, grid, strict=True)
    )
    block = (row[:, None] * grid[1] + column).flatten()
    sums = torch.zeros(grid[0] * grid[1], dtype=torch.float64, device=device).scatter_add_(0, block, thumbnail.double())
    powers = ((sums - sums.max()) / tau).exp()
    sigma = powers / (powers.sum() + SUM_EPS)
    return (ratio * (1 + sigma - sigma.mean())).clamp_max(1.0)


def crop_scores(
    logits: Tensor, thumbnail: Tensor, size: tuple[int, int], grid: tuple[int, int], side: tuple[int, int]
) -> Tensor:
    """Own and global score of each crop's tokens, each normalised over the crop's part of the image.

    Args:
        logits: (crops, h * w) [CLS] logits of the crops.
        thumbnail: (h * w,) those of the thumbnail.
        size: (height, width) of the original image, pixels.
        grid, side: see `crop_ratios`.

    Returns:
        (crops, h * w); minus infinity at padding.
    """
    shown = image_mask(size, grid, side, logits.device)
    top, bottom, left, right = unpadded(size, (grid[0] * side[0], grid[1] * side[1]))
    height, width = max(bottom - top, 1), max(right - left, 1)  # a very thin image shows in no token at all
    overview = torch.nn.functional.interpolate(
        thumbnail.view(1, 1, *side), size=(height, width), mode="bilinear", align_corners=False
    )[0, 0]
    rows, columns = on_canvas(grid, side, logits.device)
    rows, columns = (rows - top).clamp(0, height - 1), (columns - left).clamp(0, width - 1)
    parts = [part.masked_fill(~shown, 0) for part in (logits, overview[rows, columns])]
    unit = [part / part.norm(dim=1, keepdim=True).clamp_min(NORM_EPS) for part in parts]
    return (unit[0] + unit[1]).masked_fill(~shown, -torch.inf)


@dataclass(frozen=True)
class Choice:
    """What survives of a tiled image.

    Args:
        thumbnail: (K0,) tokens of the thumbnail, in the order of delivery.
        crops: (crops, N) bool.
        quota: (crops,) tokens kept per crop.
    """

    thumbnail: Tensor
    crops: Tensor
    quota: Tensor


def select_tokens(
    logits: Tensor,
    size: tuple[int, int],
    grid: tuple[int, int],
    side: tuple[int, int],
    *,
    ratio: float,
    tau: float = 10.0,
    total: int | None = None,
) -> Choice:
    """Choose the survivors of thumbnail and crops.

    Args:
        logits: (1 + crops, h * w) head-mean [CLS] logits before the softmax; tile 0 is the thumbnail.
        size: (height, width) of the original image, pixels.
        grid: (rows, columns) of crops.
        side: (h, w) tokens of a tile.
        ratio: mean share that survives, in (0, 1].
        tau: temperature of the crops' shares.
        total: None for the official counts, which truncate per tile; otherwise exactly so many tokens survive, all
            tiles together, if there are so many.
    """
    n = logits.shape[1]
    n_thumbnail = int(n * ratio)
    scores = crop_scores(logits[1:], logits[0], size, grid, side)
    shown = (scores > -torch.inf).sum(1)
    wanted = shown * crop_ratios(logits[0], grid, side, ratio, tau)
    if total is None:
        quota = wanted.long()
    else:
        n_thumbnail = min(n_thumbnail, total)
        quota = share(wanted, total - n_thumbnail, shown)
        n_thumbnail = min(n, total - int(quota.sum()))
    return Choice(best_first(logits[0], n_thumbnail), best_mask(scores, quota), quota)


def deliver_crops(kept: Tensor, size: tuple[int, int], grid: tuple[int, int], side: tuple[int, int]) -> Tensor:
    """The order in which kept tokens of the crops and the newlines reach the language model, as released.

    A token is written at its number among its crop's un-padded tokens, so with padding rows shift or shear against
    other crops; every row of the canvas ends with a newline, rows of padding too.

    Args:
        kept: (crops, h * w) bool.
        size, grid, side: see `select_tokens`.

    Returns:
        (M,) of crop * h * w + token, or -1 for a newline.
    """
    rows, columns = on_canvas(grid, side, kept.device)
    width = grid[1] * side[1]
    number = image_mask(size, grid, side, kept.device).cumsum(1) - 1
    rows = rows[:, :1] + number // side[1]
    columns = columns[:, :1] + number % side[1]
    place = (rows * (width + 1) + columns)[kept]
    line_ends = torch.arange(grid[0] * side[0], device=kept.device) * (width + 1) + width
    tokens = kept.flatten().nonzero().squeeze(1)
    order = torch.cat([place, line_ends]).argsort()
    return torch.cat([tokens, torch.full_like(line_ends, -1)])[order]
