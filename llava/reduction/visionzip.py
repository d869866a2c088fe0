"""VisionZip: keep [CLS] and what it attends to most, condense the rest into a few contextual tokens.

Source: "VisionZip: Longer is Better but Not Necessary in Vision Language Models", arXiv:2412.04467; official code, the
vision tower's forward and the function that restores crops to the grid.
Differences from the official code: only the needed attention row is computed; fewer tokens left than contextual ones
asked gives as many as are left; ties broken by the lower index.

How it selects:
1. Dominant tokens: [CLS] and the patches it attends to most in block `layer`, summed over heads; they go on unchanged.
2. Of the others every n-th is a target, as many as `contextual`; each of the rest joins the target whose key (mean over
   heads) is most similar.
3. A contextual token is made of a target and the mean of those that joined it; these follow the dominant ones.

When not to use it: with vision towers that have no [CLS] token; where the question is about something beside the main
object, since [CLS] knows no question and the rest is blurred into a few tokens without a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import LlavaError
from llava.reduction.base import RENUMBERED
from llava.reduction.checks import option
from llava.reduction.image import TOWER, BeforeLLM, ImageState, Kept
from llava.reduction.ranking import best_first
from llava.reduction.registry import register
from llava.reduction.tiles import crops_of, quotas, reading_order

OFFICIAL, CLEAN = "official", "clean"
CONTEXTUAL_SHARE = 5 / 32  # 30 of 192, 20 of 128, 10 of 64


@register("visionzip")
@dataclass(frozen=True)
class VisionZip(BeforeLLM):
    """Keep what [CLS] attends to and [CLS] itself; merge the rest by similar keys; both before the projector.

    Tokens go on in the order dominant (ascending, [CLS] first), contextual; with crops, as `pack_crops` says, without
    newlines.

    Args:
        keep: visual tokens left per image, dominant and contextual ones and [CLS] together, shared evenly by its tiles;
            or a fraction in (0, 1] of each tile's tokens.
        positions: only "renumbered": merged tokens stand nowhere special.
        contextual: how many of a tile's tokens are merged ones; None: the paper's share, 5 in 32.
        layer: block of the vision tower whose attention and keys are read, 0-based; None: the one that feeds the
            projector.
        variant: "official": a contextual token is its target plus the mean of those that joined, so about twice as
            long; "clean": the mean of target and joined, as the paper says.

    Raises:
        ConfigurationError: more contextual tokens than `keep` has room for.
        UnsupportedModel: the tower has no [CLS] token (on use).
    """

    keep: int | float = 192
    contextual: int | None = option(None, low=0)
    layer: int | None = None
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))

    paper: ClassVar[str] = "arXiv:2412.04467"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    score_name: ClassVar[str] = "attention of [CLS], sum over heads"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "192": {"keep": 192, "contextual": 30},
        "128": {"keep": 128, "contextual": 20},
        "64": {"keep": 64, "contextual": 10},
        "320": {"keep": 1 / 9, "contextual": 10},  # LLaVA-NeXT: 64 of each tile's 576, hence 320 for five tiles
    }

    def problems(self) -> list[str]:
        problems = []
        if self.positions != RENUMBERED:
            problems.append("positions='original' is not possible: merged tokens stand nowhere. Use 'renumbered'.")
        if isinstance(self.keep, int) and (self.contextual or 0) >= self.keep:
            problems.append(
                f"contextual={self.contextual} leaves no room for [CLS] in keep={self.keep}: give fewer, e.g. "
                f"contextual={_contextual(self.keep)}."
            )
        return problems

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.layer,)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        return self.asked(n_visual) if n_tiles == 1 or not isinstance(self.keep, float) else None

    def scores(self, image: ImageState) -> Tensor:
        return image.layer(self.layer).cls_attention().sum(1)

    def select_image(self, image: ImageState) -> Kept:
        tiles, layer = image.tiles, image.layer(self.layer)
        attention, metric = layer.cls_attention(), layer.key.mean(1)  # (T, H, N), (T, 1 + N, d)
        counts = quotas(self.keep, len(tiles.features), attention.shape[-1])
        if tiles.tower is None:
            raise LlavaError("The vision tower was not read, so there is nothing to merge.")
        merged, places, dominant = [], [], []
        for tile, count in enumerate(counts):
            contextual = _contextual(count) if self.contextual is None else min(self.contextual, max(count - 1, 0))
            one = slice(tile, tile + 1)
            dominant.append(dominant_tokens(attention[one], count - contextual)[0])
            tokens, positions = condense(
                tiles.tower[one], metric[one], dominant[-1][None], contextual, self.variant == CLEAN
            )
            merged.append(tokens[0])
            places.append(torch.where(positions[0] > 0, tile * attention.shape[-1] + positions[0] - 1, -1))
        tokens, sources, crops = torch.cat(merged), torch.cat(places), crops_of(image)
        if crops is not None:
            order = pack_crops([len(each) for each in merged[1:]], dominant[1:], crops.grid, crops.side)
            thumbnail = torch.arange(len(merged[0]), device=order.device)
            order = torch.cat([thumbnail, len(merged[0]) + order])
            return Kept(values=tokens[order], space=TOWER, sources=sources[order])
        if tiles.newline is None:
            return Kept(values=tokens, space=TOWER, sources=sources)
        # A tiled model ends an image without crops by a newline, which stays, as released.
        ended = torch.cat([image.project(tokens), tiles.newline[None].to(image.features)])
        return Kept(values=ended, sources=torch.nn.functional.pad(sources, (0, 1), value=-1))


def _contextual(keep: int) -> int:
    return min(round(keep * CONTEXTUAL_SHARE), max(keep - 1, 0))


def dominant_tokens(cls_attention: Tensor, dominant: int) -> Tensor:
    """The patches [CLS] attends to most, descending, as positions of the tower's sequence.

    Args:
        cls_attention: (tiles, heads, N) softmax [CLS] rows over the patches.
        dominant: how many positions, [CLS] included.

    Returns:
        (tiles, dominant): 0, then 1 + patch in descending order of attention.
    """
    patches = best_first(cls_attention.sum(1), max(dominant - 1, 0)) + 1
    return torch.nn.functional.pad(patches, (1, 0))[:, :dominant]


def condense(
    hidden: Tensor, metric: Tensor, dominant: Tensor, contextual: int, average: bool = False
) -> tuple[Tensor, Tensor]:
    """Keep the dominant positions as they are, merge the others into contextual tokens.

    Every `stride`-th remaining token is a target; each other one joins the target of the most similar key. A contextual
    token is its target plus the mean of those that joined (a sum, as released), or the mean of all of them.

    Args:
        hidden: (tiles, 1 + N, C) output of the feature layer, [CLS] at 0.
        metric: (tiles, 1 + N, d) keys of that layer, mean over heads.
        dominant: (tiles, P) positions, any order.
        contextual: tokens to condense to.
        average: mean of target and joined ones instead of the released sum.

    Returns:
        (tiles, P + contextual, C): dominant in ascending position, then contextual; and the positions (tiles, same)
        of the dominant tokens and the targets.
    """
    tiles, length, width = hidden.shape
    kept = dominant.sort(-1).values
    taken = torch.zeros(tiles, length, dtype=torch.bool, device=hidden.device).scatter_(1, kept, True)
    n_pool = length - kept.shape[1]
    pool = taken.to(torch.int8).argsort(dim=1, stable=True)[:, :n_pool]
    contextual = min(contextual, n_pool)
    if contextual == 0:
        return _rows(hidden, kept), kept
    stride = max(1, n_pool // contextual)
    is_target = torch.zeros(n_pool, dtype=torch.bool, device=hidden.device)
    is_target[: contextual * stride : stride] = True
    targets, others = pool[:, is_target], pool[:, ~is_target]
    keys = metric / metric.norm(dim=-1, keepdim=True)
    joins = (_rows(keys, others) @ _rows(keys, targets).transpose(1, 2)).argmax(-1)  # (tiles, others)
    member = torch.nn.functional.one_hot(joins, contextual).to(hidden.dtype)
    joined = member.transpose(1, 2) @ _rows(hidden, others)
    count = member.sum(1)[..., None]  # (tiles, contextual, 1)
    centre = _rows(hidden, targets)
    merged = (centre + joined) / (1 + count) if average else centre + joined / count.clamp_min(1)
    return torch.cat([_rows(hidden, kept), merged], dim=1), torch.cat([kept, targets], dim=1)


def pack_crops(
    lengths: Sequence[int], dominant: Sequence[Tensor], grid: tuple[int, int], side: tuple[int, int]
) -> Tensor:
    """Order in which the tokens of all crops are delivered: patches row by row over the canvas, [CLS]s, contextual.

    Args:
        lengths: tokens that `condense` gave for each crop.
        dominant: per crop its (P,) positions with [CLS] = 0, any order.
        grid: (rows, columns) of crops.
        side: (h, w) tokens of a crop.

    Returns:
        (sum of lengths,) indices into the tokens of all crops, one crop after the other.
    """
    device = dominant[0].device
    row = torch.full((len(lengths), side[0] * side[1]), -1, dtype=torch.long, device=device)
    start, classes, contextual = 0, [], []
    for crop, (length, kept) in enumerate(zip(lengths, dominant, strict=True)):
        number = torch.arange(start, start + length, device=device)
        patches = kept.sort().values[1:] - 1
        row[crop].scatter_(0, patches, number[1 : len(kept)])
        classes.append(number[: min(1, len(kept))])
        contextual.append(number[len(kept) :])
        start += length
    return torch.cat([row.flatten()[reading_order(row >= 0, grid, side)], *classes, *contextual])


def _rows(vectors: Tensor, index: Tensor) -> Tensor:
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
