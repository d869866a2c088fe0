"""One run of the decoder: what its layers share while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llava.model.report import PrefillRecord
from llava.model.stages import PromptState, Stage
from llava.reduction.groups import Groups


@dataclass
class Pass:
    """One run of the decoder.

    Args:
        state: the cuts of this prompt.
        cache: the cache, as far as it is known.
        prefill: whether this pass computes a whole prompt.
        record: notes for the report, if this is a prefill that counts.
        replay: cuts chosen earlier for this prompt, to be made again (generation without a cache).
        read: what was read from the layer before a cut.
        problem: the selection problems of the next cut and their planned survivors.
        positions: (B, N) of the prompt's columns, if they are to be counted anew.
        masks, rotary: masks by stage and layer type, and (stage, given table, new tables), shared by layers of a stage.
    """

    state: PromptState
    cache: Any = None
    prefill: bool = False
    record: PrefillRecord | None = None
    replay: list[Stage] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)
    problem: tuple[Groups, list[int] | None] | None = None
    positions: Tensor | None = None
    masks: dict[tuple[int, str], Tensor | None] = field(default_factory=dict)
    rotary: list[tuple[Stage, Tensor, tuple[Tensor, ...]]] = field(default_factory=list)

    def selects(self) -> bool:
        """Whether survivors are to be chosen in this pass."""
        return self.record is not None and self.state.layout.has_images

    def cut_made(self) -> None:
        """Forget what belongs to the columns before a cut."""
        self.read.clear()
        self.masks.clear()
        self.rotary.clear()
        self.problem = None
