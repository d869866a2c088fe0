"""What a cut leaves behind: for every later layer, the prompt column and the validity of each of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Mixtures:
    """Hidden states that replace those of the tokens they stand at.

    Args:
        sample: (R, 1) rows of the batch.
        place: (R, M) columns of the stage; -1 where `values` does not count.
        values: (R, M, D).
    """

    sample: Tensor
    place: Tensor
    values: Tensor

    def put_into(self, hidden: Tensor) -> Tensor:
        """Return (B, S, D) hidden states with the mixtures written in."""
        padded = F.pad(hidden, (0, 0, 0, 1))  # column -1 takes what does not count
        return padded.index_put((self.sample, self.place), self.values.to(hidden.dtype))[:, :-1]


@dataclass(frozen=True, eq=False)
class Stage:
    """The columns seen by layers from `first_layer` on, until the next cut.

    Args:
        first_layer: decoder layer whose input was cut (0-based).
        index: (B, S) prompt column every column stands at, ascending; ragged samples are filled up on the left.
        valid: (B, S) False at filler; None when no sample has filler.
        source: (B, S) prompt column the token of every column comes from. The same as `index`, unless a method put
            mixtures of tokens after the others.
        mixtures: the hidden states that mixtures of several tokens start with; None when there are none.
        shift: (B,) by how much positions are smaller than in the prompt at the end of the sample; None: positions are
            those of the prompt.
    """

    first_layer: int
    index: Tensor
    valid: Tensor | None
    source: Tensor
    mixtures: Mixtures | None = None
    shift: Tensor | None = None

    def visual_rows(self, visual: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """What is left of features that belong to the visual columns of the prompt.

        Args:
            visual: (B, N) True at visual columns.
            features: (T, D) one row for each of them, sample after sample.

        Returns:
            (B, S) True at the stage's visual columns, and their rows.
        """
        source = self.source.to(visual.device)
        left = visual.gather(1, source)
        left = left if self.valid is None else left & self.valid.to(left.device)
        rows = (visual.flatten().cumsum(0).view_as(visual) - 1).gather(1, source)[left]
        return left, features[rows.to(features.device)]

    def extended(self, n_columns: int, n_prompt: int) -> Stage:
        """The same stage with prompt columns n_prompt .. n_columns - 1, generated since, appended."""
        new = torch.arange(n_prompt, n_columns, device=self.index.device).expand(self.index.shape[0], -1)
        pad = (0, new.shape[1])
        return replace(
            self,
            index=torch.cat([self.index, new], dim=1),
            source=torch.cat([self.source, new], dim=1),
            valid=None if self.valid is None else F.pad(self.valid, pad, value=True),
        )


@dataclass
class PromptState:
    """The cuts made in one prefill. It lives on the cache object, so generations may interleave and turns continue.

    Args:
        layout: the prompt's `Layout`; None for a cache that was filled without pruning.
        n_visual: visual tokens alive now, per selection problem (`Layout.members`).
        stages: one per cut.
        alive: `n_visual` after every cut.
        cached: per decoder layer whose cache was cut again at the end of the prefill, what it holds.
        prepared: what the method noted before layer 0.
        handed: (B, N) scores by name, handed on by a stage before the language model.
        before: what was cut before the language model (`llava.model.shortprompt`); None: nothing.
    """

    layout: Any
    n_visual: list[int] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    alive: list[list[int]] = field(default_factory=list)
    cached: dict[int, Stage] = field(default_factory=dict)
    prepared: Any = None
    handed: dict[str, Tensor] = field(default_factory=dict)
    before: Any = None

    def at(self, layer: int) -> Stage | None:
        """The stage layer `layer` works on; None while it still sees the whole prompt."""
        if layer in self.cached:
            return self.cached[layer]
        return next((stage for stage in reversed(self.stages) if stage.first_layer <= layer), None)

    def columns(self, stage: Stage | None) -> tuple[Tensor, Tensor]:
        """(image, real), both (B, S), of the columns of a stage; see `Layout`."""
        image, real = self.layout.image, self.layout.real
        if stage is None:
            return image, real
        image, real = image.gather(1, stage.index), real.gather(1, stage.index)
        return (image, real) if stage.valid is None else (image.masked_fill(~stage.valid, -1), real & stage.valid)

    @property
    def newest(self) -> Stage | None:
        """The stage of the newest cut."""
        return self.stages[-1] if self.stages else None

    def counts(self, n_kept: Sequence[int], together: bool) -> list[int]:
        """Columns per sample when `n_kept` visual tokens survive per selection problem."""
        layout = self.layout
        counts = [total - sum(images) for total, images in zip(layout.lengths, layout.visual, strict=True)]
        for (sample, _), kept in zip(layout.members(together), n_kept, strict=True):
            counts[sample] += kept
        return counts


def columns_within(stage: Stage | None, source: Tensor, n_prompt: int) -> Tensor:
    """Where tokens are in the sequence of a stage that has them all.

    Args:
        stage: None stands for the whole prompt.
        source: (B, S') prompt columns of the tokens.
        n_prompt: columns of the prompt.
    """
    if stage is None:
        return source
    where = torch.arange(stage.source.shape[1], device=source.device).expand_as(stage.source)
    return source.new_zeros(len(source), n_prompt).scatter_(1, stage.source, where).gather(1, source)


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
