"""DART that remembers which tokens it took for pivots."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from llava.reduction.base import LayerState
from llava.reduction.checks import private
from llava.reduction.dart import DART
from llava.reduction.tensors import largest_first


@dataclass(frozen=True)
class WatchedDART(DART):
    """Selects as `DART` does.

    Args:
        seen: gets a (B, S) bool tensor for every prefill, True at the columns of visual and text pivots.
    """

    seen: list[Tensor] | None = private(None)

    def select(self, state: LayerState) -> Tensor:
        if self.seen is not None:
            self.seen.append(self._pivots(state))
        return super().select(state)

    def _pivots(self, state: LayerState) -> Tensor:
        groups, scores = state.groups, self._pivot_scores(state)
        visual = largest_first(groups.visual(scores), groups.valid, self.pivots_visual)
        text = largest_first(groups.text(scores), groups.text_valid, self.pivots_text)
        columns = torch.cat([groups.columns.gather(1, visual), groups.text_columns.gather(1, text)], 1)
        used = torch.cat([groups.valid.gather(1, visual), groups.text_valid.gather(1, text)], 1)
        marks = torch.zeros(state.hidden.shape[:2], dtype=torch.int32, device=columns.device)
        rows = groups.sample[:, None].expand_as(columns)
        return marks.index_put((rows, columns), used.int(), accumulate=True) > 0


def watched(method: DART) -> WatchedDART:
    """Return the same DART, watched; its `seen` is a new list."""
    given = {field.name: getattr(method, field.name) for field in fields(method)}
    own: dict[str, Any] = {**given, "seen": []}
    return WatchedDART(**own)
