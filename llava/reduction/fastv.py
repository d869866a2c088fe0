"""FastV: keep the visual tokens that the last prompt token attends to most, early in the language model.

Source: "An Image is Worth 1/2 Tokens After Layer 2", arXiv:2403.06764; the official code's cached variants, which
choose once in the prefill (its masking variant, which gave the paper's accuracies, chooses again at every token and
saves no time).
Differences from the official code: the scoring layer runs once, only the one attention row is computed; batch > 1 with
each sample's own last token, several images, positions found in the prompt; ties broken by the lower index.

How it selects:
1. The attention that the prompt's last token pays to every visual token in layer - 1 (softmax over the whole prompt),
   mean over heads. Only this row is computed; fused attention kernels stay on.
2. The `keep` tokens with most of it go on, in reading order and with their original positions.

When not to use it: at small budgets, where the DART paper (Figure 2) finds methods that score by attention often below
random tokens; where the cache of an image is to serve other questions too, since the choice depends on the question;
where the vision tower and the first layers are what costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llava.reduction import budgets
from llava.reduction.base import InLLM, LayerState, last_query
from llava.reduction.checks import option
from llava.reduction.groups import Groups
from llava.reduction.registry import register
from llava.reduction.tensors import largest_first, to_device

ROUND, INT = "round", "int"


@register("fastv")
@dataclass(frozen=True)
class FastV(InLLM):
    """Rank once by the attention of the prompt's last token in layer - 1, and cut before `layer`.

    Args:
        keep: visual tokens left per image (count), or the fraction 1 - R of that image's tokens.
        layer, images: see `InLLM`. The paper's K is 2; the official cached LLaVA variant uses 3.
        rounding: of a fraction: "round", half to even, as in the official code for transformers' LLaVA; "int",
            truncated, as in its cached LLaVA variant.
        budget: "exact": what `keep` says survives the cut; "mean": `keep` is the mean over all layers, so that fewer
            survive the cut.
    """

    keep: int | float = 0.5
    rounding: str = option(ROUND, choices=(ROUND, INT))
    budget: str = option(budgets.EXACT, choices=(budgets.EXACT, budgets.MEAN))

    paper: ClassVar[str] = "arXiv:2403.06764"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    score_name: ClassVar[str] = "attention of the last prompt token"

    def asked(self, n_visual: int) -> int:
        return self._asked(n_visual, 1)

    def n_kept(self, n_visual: int) -> int:
        return self._count(n_visual, 1)

    def plan(self, groups: Groups) -> list[int]:
        return [self._count(*sizes) for sizes in zip(groups.n_visual, groups.n_images, strict=True)]

    def queries(self, groups: Groups) -> tuple[Tensor, Tensor]:
        return last_query(groups)

    def select(self, state: LayerState) -> Tensor:
        groups = state.groups
        counts = to_device(self.plan(groups), state.hidden.device)
        return top_tokens(self.scores(state), groups.valid, counts)

    def scores(self, state: LayerState) -> Tensor:
        return state.attention.head_mean()[:, 0]

    def _asked(self, n_visual: int, n_images: int) -> int:
        target = self.target(n_visual, n_images)
        return round(target) if self.rounding == ROUND else int(target)

    def _count(self, n_visual: int, n_images: int) -> int:
        asked = self._asked(n_visual, n_images)
        if self.budget == budgets.MEAN:
            return budgets.count_after_one_cut(asked, n_visual, self.layer, self.n_layers)
        return asked


def top_tokens(scores: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """The tokens with the largest scores; ties go to the lower index.

    Args:
        scores: (R, L).
        valid: (R, L) False at padding.
        counts: (R,) how many survive in each row.

    Returns:
        (R, L) bool.
    """
    ranking = largest_first(scores, valid, scores.shape[1])
    within = torch.arange(scores.shape[1], device=scores.device) < counts[:, None]
    return torch.zeros_like(valid).scatter(1, ranking, within) & valid
