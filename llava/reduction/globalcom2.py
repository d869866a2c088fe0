"""GlobalCom2: the thumbnail's [CLS] logits decide how many tokens each crop keeps, and help to decide which.

Source: "Global Compression Commander: Plug-and-Play Inference Acceleration for High-Resolution Large Vision-Language
Models", arXiv:2501.05179; official code, thumbnail, ratio and crop functions (logits before the softmax, kept tokens
written by their number among the un-padded ones).
Differences from the official code: several images per prompt and batches; the model's dtype throughout (there the crops
are cast to half); ties broken by the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.reduction.ranking import best_first, best_mask, share
from llava.reduction.tiles import image_mask, on_canvas, unpadded

SUM_EPS = 1e-8
NORM_EPS = 1e-12
OFFICIAL, CLEAN = "official", "clean"
EXACT = "exact"


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
    parts = (logits, overview[rows, columns])
    parts = [part.masked_fill(~shown, 0) for part in parts]
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


def deliver_crops(
    kept: Tensor, size: tuple[int, int], grid: tuple[int, int], side: tuple[int, int], variant: str = OFFICIAL
) -> Tensor:
    """The order in which kept tokens of the crops and the newline tokens reach the language model.

    Args:
        kept: (crops, h * w) bool.
        size, grid, side: see `select_tokens`.
        variant: "official" writes a token at its number among the crop's un-padded tokens, so with padding rows shift
            or shear against other crops, and ends every row of the canvas with a newline; "clean" leaves every token in
            its place and ends the rows that show the image.

    Returns:
        (M,) of crop * h * w + token, or -1 for a newline.
    """
    rows, columns = on_canvas(grid, side, kept.device)
    width = grid[1] * side[1]
    first, last = 0, grid[0] * side[0]
    if variant == OFFICIAL:
        shown = image_mask(size, grid, side, kept.device)
        number = shown.cumsum(1) - 1
        rows = rows[:, :1] + number // side[1]
        columns = columns[:, :1] + number % side[1]
    else:
        first, last, _, _ = unpadded(size, (last, width))
    place = (rows * (width + 1) + columns)[kept]
    line_ends = torch.arange(first, last, device=kept.device) * (width + 1) + width
    tokens = kept.flatten().nonzero().squeeze(1)
    order = torch.cat([place, line_ends]).argsort()
    return torch.cat([tokens, torch.full_like(line_ends, -1)])[order]
