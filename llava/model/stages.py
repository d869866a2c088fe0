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

    def sorted_index(self) -> Tensor:
        """`index` with left filler replaced by -1, so that every row ascends."""
        return (self.index if self.valid is None else self.index.masked_fill(~self.valid, -1)).contiguous()

    def extended(self, n_columns: int, n_prompt: int) -> Stage:
        """The same stage with prompt columns n_prompt .. n_columns - 1, generated since, appended."""
        new = torch.arange(n_prompt, n_columns, device=self.index.device).expand(self.index.shape[0], -1)
        valid = None if self.valid is None else torch.nn.functional.pad(self.valid, (0, new.shape[1]), value=True)
        return Stage(self.first_layer, torch.cat([self.index, new], dim=1), valid)


@dataclass
class PromptState:
    """The cuts made in one prefill. It lives on the cache object, so generations may interleave and turns continue.

    Args:
        layout: the prompt; None for a cache that was filled without pruning.
        n_visual: visual tokens alive now, per selection problem (`Layout.members`).
        stages: one per cut.
    """

    layout: Layout | None
    n_visual: list[int] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def at(self, layer: int) -> Stage | None:
        """The stage layer `layer` works on; None while it still sees the whole prompt."""
        return next((stage for stage in reversed(self.stages) if stage.first_layer <= layer), None)

    def columns(self) -> tuple[Tensor, Tensor]:
        """(image, real), both (B, S), of the columns alive now; see `Layout`."""
        image, real = self.layout.image, self.layout.real
        if not self.stages:
            return image, real
        last = self.stages[-1]
        image, real = image.gather(1, last.index), real.gather(1, last.index)
        return (image, real) if last.valid is None else (image.masked_fill(~last.valid, -1), real & last.valid)

    def cut(self, layer: int, keep: Tensor, n_kept: list[int], together: bool) -> Tensor:
        """Record a cut and return the (B, S') columns of the current sequence that stay.

        Args:
            layer: decoder layer whose input is cut.
            keep: (B, S) bool.
            n_kept: surviving visual tokens per selection problem.
            together: whether a problem spans all images of a prompt.
        """
        layout = self.layout
        counts = [total - sum(images) for total, images in zip(layout.lengths, layout.visual, strict=True)]
        for (sample, _), kept in zip(layout.members(together), n_kept, strict=True):
            counts[sample] += kept
        self.n_visual = list(n_kept)
        columns, valid = pack(keep, counts)
        index = self.stages[-1].index.gather(1, columns) if self.stages else columns
        self.stages.append(Stage(layer, index, valid))
        return columns

    def replay(self, stage: Stage) -> Tensor:
        """Make a cut again that was chosen before; return the (B, S') columns of the current sequence that stay."""
        columns = stage.index
        if self.stages:
            before = self.stages[-1].sorted_index()
            columns = torch.searchsorted(before, columns).clamp_max(before.shape[1] - 1)
        self.stages.append(stage)
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
