"""One run of the decoder: what its layers share while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llava.model.stages import PromptState, Stage


@dataclass
class Pass:
    """One run of the decoder.

    Args:
        state: the cuts of this prompt.
        cache: the cache, as far as it is known.
        prefill: whether this pass computes a whole prompt.
        record: the `PrefillRecord`, notes for the report, if this is a prefill that counts.
        replay: cuts chosen earlier for this prompt, to be made again (generation without a cache).
        read: what was read from the layer before a cut.
        groups, plan: the selection problems (`Groups`) of the next cut, and the survivors planned for each.
        positions: (B, N) of the prompt's columns, if they are to be counted anew.
        ended: whether the layers that are still to come have been run already.
        shared: what the prompts take from stored prefixes (`Shared`); None: nothing.
        note_at, noted: layer whose input is to be noted, and that input.
        stops: whether the layers from `note_at` on are left out.
        masks, rotary: masks by stage and layer type, and (stage, given table, new tables), shared by layers of a stage.
    """

    state: PromptState
    cache: Any = None
    prefill: bool = False
    record: Any = None
    replay: list[Stage] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)
    groups: Any = None
    plan: list[int] | None = None
    positions: Any = None
    ended: bool = False
    shared: Any = None
    note_at: int | None = None
    noted: Tensor | None = None
    stops: bool = False
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
        self.groups = self.plan = None
