"""VisionZip: keep [CLS] and what it attends to most, condense the rest into a few contextual tokens.

Source: "VisionZip: Longer is Better but Not Necessary in Vision Language Models", arXiv:2412.04467; official code, the
vision tower's forward and the function that restores crops to the grid.
Differences from the official code: only the needed attention row is computed; fewer tokens left than contextual ones
asked gives as many as are left; ties broken by the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llava.reduction.ranking import best_first
from llava.reduction.tiles import reading_order


def dominant_tokens(cls_attention: Tensor, dominant: int) -> Tensor:
    """The patches [CLS] attends to most, descending, as positions of the tower's sequence.

    Args:
        cls_attention: (tiles, heads, N) softmax [CLS] rows over the patches.
        dominant: how many positions, [CLS] included.

    Returns:
        (tiles, dominant): 0, then 1 + patch in descending order of attention.
    """
    patches = best_first(cls_attention.sum(1), dominant - 1) + 1
    return torch.nn.functional.pad(patches, (1, 0))


def condense(hidden: Tensor, metric: Tensor, dominant: Tensor, contextual: int) -> tuple[Tensor, Tensor]:
    """Keep the dominant positions as they are, merge the others into contextual tokens.

    Every `stride`-th remaining token is a target; each other one joins the target of the most similar key. A contextual
    token is its target plus the mean of those that joined (a sum, as released, not a mean of all).

    Args:
        hidden: (tiles, 1 + N, C) output of the feature layer, [CLS] at 0.
        metric: (tiles, 1 + N, d) keys of that layer, mean over heads.
        dominant: (tiles, P) positions, any order.
        contextual: tokens to condense to.

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
    mean = joined / member.sum(1).clamp_min(1)[..., None]
    positions = torch.cat([kept, targets], dim=1)
    return torch.cat([_rows(hidden, kept), _rows(hidden, targets) + mean], dim=1), positions


def pack_crops(crops: Tensor, dominant: Tensor, grid: tuple[int, int], side: tuple[int, int]) -> Tensor:
    """Order in which the tokens of all crops are delivered: patches row by row over the canvas, [CLS]s, contextual.

    Args:
        crops: (crops, P + contextual, C) output of `condense`.
        dominant: (crops, P) positions with [CLS] = 0, any order.
        grid: (rows, columns) of crops.
        side: (h, w) tokens of a crop.

    Returns:
        (crops * (P + contextual), C).
    """
    n_crops, n_dominant = dominant.shape
    patches = dominant.sort(-1).values[:, 1:] - 1
    n = side[0] * side[1]
    row = torch.zeros(n_crops, n, dtype=torch.long, device=crops.device)
    row.scatter_(1, patches, torch.arange(1, n_dominant, device=crops.device).expand_as(patches))
    read = reading_order(row > 0, grid, side)
    canvas = crops[read // n, row.flatten()[read]]
    return torch.cat([canvas, crops[:, 0], crops[:, n_dominant:].flatten(0, 1)])


def _rows(vectors: Tensor, index: Tensor) -> Tensor:
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
