"""Base of the methods that cut at several decoder layers, with a published schedule or one solved for a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llava.reduction import budgets
from llava.reduction.base import AUTO, EACH, ORIGINAL, RENUMBERED, TOGETHER, LLMStage
from llava.reduction.checks import option
from llava.reduction.groups import Groups


@dataclass(frozen=True)
class Schedule(LLMStage):
    """A method that cuts several times inside the language model.

    Args:
        keep: visual tokens per image (count), or a fraction in (0, 1] of that image's tokens; `budget` says where.
            None: the method's published schedule.
        budget: "mean": `keep` is the mean over all layers; "exact": `keep` tokens survive the last cut.
        images: "each" gives every image of a prompt its own budget and competition; "together" lets all visual tokens
            of a prompt compete for the sum of the budgets.
        positions: "renumbered": counted anew, without gaps, after every cut, in the prefill and for generated tokens;
            "original": survivors keep theirs; "auto": renumbered, as released, except in models whose visual tokens
            have a time, a row and a column.
    """

    keep: int | float | None = None
    budget: str = option(budgets.MEAN, choices=(budgets.MEAN, budgets.EXACT))
    images: str = option(EACH, choices=(EACH, TOGETHER))
    positions: str = option(AUTO, choices=(AUTO, RENUMBERED, ORIGINAL))

    designed_for: ClassVar[int] = 32  # layers of the model the schedule was published for

    @property
    def position_policy(self) -> str:  # type: ignore[override]
        return self.positions

    def after(self, chosen: tuple[int, ...] | None, released: tuple[int, ...]) -> tuple[int, ...]:
        """Layers whose input is cut when the output of some layers is: the user's, or the released at their depths."""
        if chosen is not None:
            return tuple(layer + 1 for layer in chosen)
        return budgets.scaled_layers([layer + 1 for layer in released], self.designed_for, self.n_layers)

    def counts(self, n_visual: int, n_images: int = 1) -> list[int]:
        """Visual tokens after each cut, for a problem of `n_visual` tokens in `n_images` images."""
        raise NotImplementedError

    def target(self, n_visual: int, n_images: int = 1) -> float:
        """`keep` as a number of tokens, for a problem of `n_visual` tokens in `n_images` images."""
        if self.keep is None or isinstance(self.keep, float):
            return n_visual * (1.0 if self.keep is None else self.keep)
        return min(n_visual, self.keep * n_images)

    def event(self, groups: Groups) -> int:
        """Which of the cuts is being made, counted from 0."""
        return self.layers.index(groups.layer)

    def asked(self, n_visual: int) -> int:
        return int(self.target(n_visual)) if self.keep is not None else self.counts(n_visual)[-1]

    def n_kept(self, n_visual: int) -> int | None:
        return self.counts(n_visual)[-1]

    def plan(self, groups: Groups) -> list[int] | None:
        return self.survivors(groups)

    def survivors(self, groups: Groups) -> list[int]:
        """Tokens that `counts` leaves of each problem at this cut."""
        event = self.event(groups)
        sizes = zip(groups.n_visual, groups.n_prompt, groups.n_images, strict=True)
        return [min(now, self.counts(before, images)[event]) for now, before, images in sizes]


def layer_problems(name: str, layers: Sequence[int] | None, low: int) -> list[str]:
    """Sentences on a list of layers that is not ascending or begins too early."""
    if layers is None or (layers and list(layers) == sorted(set(layers)) and layers[0] >= low):
        return []
    given = tuple(layers)
    return [f"{name}={given!r} is not usable: give ascending layers, the first at least {low}, e.g. (2, 10, 20)."]
