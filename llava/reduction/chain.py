"""A method that acts before the language model followed by one that acts inside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from llava.reduction.base import LLMStage, Reduction
from llava.reduction.image import BeforeLLM
from llava.reduction.none import NoReduction


@dataclass(frozen=True)
class Chain(Reduction):
    """Two methods in a row, e.g. `Chain(VisionZip(keep=192), DART(keep=64))`, used and counted like one.

    A count given to the second method is meant for what the first one leaves; so is a fraction.

    Args:
        first: acts in the vision tower or before the language model.
        second: acts inside the language model.

    Raises:
        ConfigurationError: a method acts elsewhere.
    """

    first: Reduction = field(default_factory=NoReduction)
    second: Reduction = field(default_factory=NoReduction)

    def problems(self) -> list[str]:
        problems = []
        if any(not isinstance(part, BeforeLLM) for part in self.first.parts if part.name != "none"):
            problems.append(
                f"first={self.first!r} does not act before the language model only: give a method such as VisionZip or "
                "DivPrune first, and the one inside the language model second."
            )
        if any(not isinstance(part, LLMStage) for part in self.second.parts if part.name != "none"):
            problems.append(
                f"second={self.second!r} does not act inside the language model only: give a method such as DART or "
                "FastV second."
            )
        return problems

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.first.name}+{self.second.name}"

    @property
    def stage(self) -> str:  # type: ignore[override]
        return f"{self.first.stage}, then {self.second.stage}"

    @property
    def paper(self) -> str:  # type: ignore[override]
        return f"{self.first.paper}; {self.second.paper}"

    @property
    def depends_on_question(self) -> bool:  # type: ignore[override]
        return self.first.depends_on_question or self.second.depends_on_question

    @property
    def parts(self) -> tuple[Reduction, ...]:
        return tuple(part for method in (self.first, self.second) for part in method.parts if part.name != "none")

    @property
    def layers(self) -> tuple[int, ...]:
        return self.second.layers

    def fitted(self, n_layers: int) -> Any:
        return replace(self, first=self.first.fitted(n_layers), second=self.second.fitted(n_layers), n_layers=n_layers)

    def asked(self, n_visual: int) -> int:
        return self.second.asked(self.first.asked(n_visual))

    def n_kept(self, n_visual: int) -> int | None:
        left = self.first.n_kept(n_visual)
        return None if left is None else self.second.n_kept(left)
