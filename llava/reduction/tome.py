"""ToMe: in every block of the vision tower, merge the most similar pairs of tokens between attention and MLP.

Source: "Token Merging: Your ViT But Faster", arXiv:2210.09461; official code for classifiers (bipartite soft matching,
size-weighted merge, schedule), placed in the blocks of a CLIP tower; there is no official LLaVA version.
Differences from the official code: a schedule that reaches an exact count; zero keys stay zero; ties broken by the
lower index.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def parse_schedule(n_layers: int, r: int | Sequence[int] | tuple[int, float]) -> list[int]:
    """Tokens removed per layer, before the per-layer limit, as the official parser reads `r`.

    Args:
        n_layers: L.
        r: one number for all layers; a list, one number per layer, zeros appended; or a tuple (r, inflect), inflect in
            [-1, 1]: a straight line from r (1 - inflect) to r (1 + inflect).
    """
    inflect = 0.0
    if isinstance(r, list):
        return r[:n_layers] + [0] * (n_layers - len(r))
    if isinstance(r, tuple):
        r, inflect = r
    low = int(r * (1 - inflect))
    step = (2 * r - 2 * low) / (n_layers - 1) if n_layers > 1 else 0.0
    return [int(low + step * layer) for layer in range(n_layers)]


def limited(schedule: Sequence[int], length: int, protected: int = 1) -> list[int]:
    """What is really removed: at most half of the unprotected tokens of each layer.

    Args:
        schedule: tokens to remove per layer.
        length: tokens at the start, protected ones included.
    """
    removed = []
    for r in schedule:
        removed.append(max(min(r, (length - protected) // 2), 0))
        length -= removed[-1]
    return removed


def exact_schedule(n_layers: int, length: int, remove: int, protected: int = 1) -> list[int] | None:
    """The most even schedule that removes exactly `remove` tokens within the limits, larger numbers first.

    Returns:
        L numbers, or None if even halving in every layer does not remove so many.
    """
    for level in range(length + 1):
        schedule = limited([level] * n_layers, length, protected)
        surplus = sum(schedule) - remove
        if surplus >= 0:
            return [r - (layer >= n_layers - surplus) for layer, r in enumerate(schedule)]
    return None


def match_and_merge(
    metric: Tensor, tokens: Tensor, sizes: Tensor | None, r: int, class_token: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Merge the r most similar pairs, each token counting as many patches as it stands for.

    Tokens at even positions choose their most similar token at odd positions; the r best pairs merge.

    Args:
        metric: (B, T, d) keys, mean over heads.
        tokens: (B, T, C).
        sizes: (B, T, 1) patches each token stands for; None for one each.
        r: pairs to merge; limited to half of the unprotected tokens.
        class_token: whether position 0 is [CLS], which never merges into another token and stays first.

    Returns:
        tokens (B, T - r, C): unmerged even ones, then all odd ones; their sizes; and group (B, T), the new position of
        each old token. With nothing to merge: tokens and sizes as given, and None.
    """
    r = min(r, (tokens.shape[1] - class_token) // 2)
    if r <= 0:
        return tokens, sizes, None
    norm = metric.norm(dim=-1, keepdim=True)
    unit = metric / torch.where(norm > 0, norm, torch.ones_like(norm))
    even, odd = unit[:, ::2], unit[:, 1::2]
    scores = even @ odd.transpose(1, 2)
    if class_token:
        scores[:, 0] = -torch.inf
    value, partner = scores.max(dim=-1)  # (B, A)
    order = value.sort(dim=1, descending=True, stable=True).indices
    unmerged = order[:, r:]
    if class_token:
        unmerged = unmerged.sort(dim=1).values
    n_unmerged = unmerged.shape[1]

    into = partner + n_unmerged
    into = into.scatter(1, unmerged, torch.arange(n_unmerged, device=order.device).expand_as(unmerged))
    group = torch.empty(metric.shape[:2], dtype=torch.long, device=order.device)
    group[:, ::2] = into
    group[:, 1::2] = torch.arange(n_unmerged, n_unmerged + odd.shape[1], device=order.device)
    if sizes is None:
        sizes = torch.ones_like(tokens[..., :1])
    length = tokens.shape[1] - r
    mass = _sum_groups(sizes, group, length)
    return _sum_groups(tokens * sizes, group, length) / mass, mass, group


def _sum_groups(values: Tensor, group: Tensor, length: int) -> Tensor:
    """Add up (B, T, C) values by group (B, T) -> (B, length, C)."""
    out = values.new_zeros(values.shape[0], length, values.shape[2])
    return out.scatter_add_(1, group[..., None].expand_as(values), values)
