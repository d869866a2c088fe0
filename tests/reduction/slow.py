"""An independent DART: Python sets, Python loops, one token at a time, as the released code works."""

from __future__ import annotations

import torch
from torch import Tensor


def slow_dart(
    hidden: Tensor,
    scores: Tensor,
    visual: list[int],
    text: list[int],
    quota: int,
    pivots_visual: int,
    pivots_text: int,
    order: str = "cpython_set",
) -> list[int]:
    """Absolute indices kept, ascending.

    Args:
        hidden: (N, D) final-normed; scores: (N,), larger is better.
        visual, text: absolute indices of the visual tokens and of the text after them, ascending.
    """

    def best(indices: list[int], count: int) -> list[int]:
        return sorted(indices, key=lambda index: (-float(scores[index]), index))[:count]

    def cosine(a: Tensor, b: Tensor) -> float:
        a, b = a / max(a.norm(), torch.tensor(1e-8)), b / max(b.norm(), torch.tensor(1e-8))
        return float((a * b).sum())

    own = best(visual, pivots_visual)
    pivots = own + best(text, pivots_text)
    turns = list(set(pivots)) if order == "cpython_set" else pivots
    kept = set(own)
    for pivot in turns:
        left = [index for index in visual if index not in kept]
        kept.update(sorted(left, key=lambda index: (cosine(hidden[pivot], hidden[index]), index))[:quota])
    return sorted(kept)
