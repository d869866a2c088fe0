"""Random: keep a uniformly drawn subset of the visual tokens; the control every other method must beat.

Source: no paper of its own; the in-model drop of the DART authors' later training code (there `random.sample` over one
window, unseeded).
Differences from the official code: a seeded draw on the CPU, the same on every device; one draw per image; by default
as many tokens as DART really keeps.

How it selects: every visual token of an image has the same chance; survivors go on in reading order and with their
original positions.

When not to use it: as anything but a control; a method that is no better at the same count gains nothing by choosing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llava.reduction import budgets, released
from llava.reduction.base import InLLM, LayerState
from llava.reduction.checks import option
from llava.reduction.groups import Groups
from llava.reduction.registry import register
from llava.reduction.tensors import to_device

DART_COUNT, INT, ROUND = "dart", "int", "round"
DART_PIVOTS = 4  # per modality, DART's default


@register("random")
@dataclass(frozen=True)
class Random(InLLM):
    """Drop visual tokens at random, before decoder layer `layer`.

    The draw depends on `seed`, the prompt's token ids and the number of the image in the prompt, so that a sample keeps
    the same tokens alone, in any batch and in a resumed run. Two images under the same words share a draw.

    Args:
        keep, layer, images: see `InLLM`.
        count: how many survive. "dart": as many as DART really keeps for this `keep` (132 for 128), a fair control;
            "int", "round": `keep` itself, a fraction being truncated or rounded (half to even); "mean": so many that
            `keep` is the mean over all layers.
        seed: another seed, another draw.
    """

    count: str = option(DART_COUNT, choices=(DART_COUNT, INT, ROUND, budgets.MEAN))
    seed: int = option(0, low=0)

    paper: ClassVar[str] = "control, no paper"
    needs: ClassVar[frozenset[str]] = frozenset({"seeds"})

    def n_kept(self, n_visual: int) -> int:
        return self._count(n_visual, 1)

    def plan(self, groups: Groups) -> list[int]:
        return [self._count(*sizes) for sizes in zip(groups.n_visual, groups.n_images, strict=True)]

    def select(self, state: LayerState) -> Tensor:
        groups = state.groups
        kept = torch.zeros(groups.valid.shape, dtype=torch.bool)
        for row, (n_visual, wanted, seed) in enumerate(
            zip(groups.n_visual, self.plan(groups), state.seeds, strict=True)
        ):
            generator = torch.Generator().manual_seed(seed + self.seed)
            kept[row, random_select(n_visual, wanted, 0, generator)] = True
        return to_device(kept, state.hidden.device, torch.bool)

    def _count(self, n_visual: int, n_images: int) -> int:
        if self.count == budgets.MEAN:
            return self.count_for_mean(n_visual, n_images)
        if self.count == DART_COUNT:
            keep, pivots = self.budget_of(n_images), min(DART_PIVOTS, n_visual)
            quotas = released.quotas(n_visual, keep, pivots, DART_PIVOTS, DART_PIVOTS, released.RELEASED)
            return released.count(n_visual, pivots, quotas)
        target = self.target(n_visual, n_images)
        return round(target) if self.count == ROUND else int(target)


def random_select(n_visual: int, n_keep: int, start: int, generator: torch.Generator) -> Tensor:
    """Draw `n_keep` of the indices start .. start + n_visual - 1, uniformly over all subsets; ascending."""
    return start + torch.randperm(n_visual, generator=generator)[:n_keep].sort().values
