"""Choosing by score: the best few of a row, or of many rows with a quota each, ties to the lower index."""

import torch
from torch import Tensor


def best_first(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores of each row, descending: (..., L) -> (..., min(count, L))."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def best_ascending(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores of each row, in ascending order of index."""
    return best_first(scores, count).sort(dim=-1).values


def best_mask(scores: Tensor, quota: Tensor | int) -> Tensor:
    """Mark the `quota` largest scores of each row.

    Args:
        scores: (R, L).
        quota: one number for all rows, or (R,) numbers on the device of `scores`.

    Returns:
        (R, L) bool.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )
    return rank < (quota[:, None] if isinstance(quota, Tensor) else quota)


def share(weights: Tensor, total: int, limits: Tensor) -> Tensor:
    """Split `total` units in proportion to weights so that none is lost, by largest remainders.

    Args:
        weights: (R,) non-negative; all zero counts as all equal.
        total: units to hand out; no more than `limits.sum()` are.
        limits: (R,) most units a row can take.

    Returns:
        (R,) integers; what a full row cannot take goes to the others, the largest remainder first.
    """
    limits = limits.long()
    weights = weights.double().clamp_min(0)
    weights = torch.where(weights.sum() > 0, weights, torch.ones_like(weights))
    wanted = weights / weights.sum() * total
    given = torch.minimum(wanted.floor().long(), limits)
    # Hand the rest out one unit per row and round, rows with the largest unmet wish first.
    for _ in range(len(weights)):
        order = (wanted - given).masked_fill(given >= limits, -torch.inf).sort(descending=True, stable=True).indices
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        given = given + ((place < total - given.sum()) & (given < limits)).long()
    spare = (limits - given).cumsum(0).clamp_max((total - given.sum()).clamp_min(0))
    return given + spare.diff(prepend=spare.new_zeros(1))
