"""What a cut leaves behind: for every later layer, the prompt column and the validity of each of its columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava.model.layout import Layout


@dataclass(frozen=True)
class Stage:
    """The columns seen by layers from `first_layer` on, until the next cut.

    Args:
        first_layer: decoder layer whose input was cut (0-based).
        index: (B, S) prompt column of every column, ascending; ragged samples are filled up on the left.
        valid: (B, S) False at filler; None when no sample has filler.
    """

    first_layer: int
    index: Tensor
    valid: Tensor | None

    def extended(self, n_columns: int, n_prompt: int) -> Stage:
        """The same stage with prompt columns n_prompt .. n_columns - 1, generated since, appended."""
        new = torch.arange(n_prompt, n_columns, device=self.index.device).expand(self.index.shape[0], -1)
        valid = None if self.valid is None else torch.nn.functional.pad(self.valid, (0, new.shape[1]), value=True)
        return Stage(self.first_layer, torch.cat([self.index, new], dim=1), valid)


@dataclass
class PromptState:
    """The cuts made in one prefill. It lives on the cache object, so generations may interleave and turns continue."""

    layout: Layout | None
    stages: list[Stage] = field(default_factory=list)

    def at(self, layer: int) -> Stage | None:
        """The stage layer `layer` works on; None while it still sees the whole prompt."""
        return next((stage for stage in reversed(self.stages) if stage.first_layer <= layer), None)

    def columns(self) -> tuple[Tensor, Tensor]:
        """(image, real), both (B, S), of the columns alive now."""
        image, real = self.layout.image, self.layout.real
        if not self.stages:
            return image, real
        last = self.stages[-1]
        image, real = image.gather(1, last.index), real.gather(1, last.index)
        return (image, real) if last.valid is None else (image.masked_fill(~last.valid, -1), real & last.valid)

    def cut(self, layer: int, keep: Tensor, counts: list[int]) -> Tensor:
        """Record a cut and return the (B, S') columns of the current sequence that stay.

        Args:
            layer: decoder layer whose input is cut.
            keep: (B, S) bool.
            counts: True entries per sample, known on the host.
        """
        columns, valid = pack(keep, counts)
        index = self.stages[-1].index.gather(1, columns) if self.stages else columns
        self.stages.append(Stage(layer, index, valid))
        return columns


def pack(keep: Tensor, counts: list[int]) -> tuple[Tensor, Tensor | None]:
    """Collect kept columns in order, right aligned.

    Args:
        keep: (B, S) bool.
        counts: True entries per row, known on the host, so that nothing waits for the device.

    Returns:
        (B, S') columns with S' = max(counts), and (B, S') bool False at the left filler, or None without filler.
    """
    size = max(counts)
    columns = keep.to(torch.int8).argsort(dim=1, stable=True)[:, keep.shape[1] - size :]
    return columns, (None if min(counts) == size else keep.gather(1, columns))


def take(values: Tensor, columns: Tensor) -> Tensor:
    """Gather columns: (B or 1, S, ...), (B, S') -> (B, S', ...)."""
    values = values.expand(columns.shape[0], *values.shape[1:])
    return values.gather(1, columns.view(*columns.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:]))
