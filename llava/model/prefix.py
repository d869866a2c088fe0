"""Running a prefill on the columns after a stored prefix: every layer gets the last columns, its cache the others.

The prefix of a prompt is everything up to the end of its last image. What causal layers compute of it does not depend
on the question, so their keys and values, and the hidden states that enter the first cut, can be stored. Prompts of a
batch are right aligned: columns before a common one come from the store, the others are computed. Where a question is
shorter than the longest one, the last columns of its prefix are computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llava.model.masks import causal_mask, layer_type
from llava.model.positions import shift_of
from llava.model.stages import PromptState, Stage, take
from llava.reduction.tensors import to_device


@dataclass(frozen=True)
class Prefix:
    """What is stored of a prompt up to the end of its last image, P columns.

    Args:
        keys, values: per decoder layer (1, G, P_l, d); layers that see the question's choice are not there.
        hidden: (1, P, D) input of the layer after them; None if there is none.
        length: P.
        kept: (P',) columns that go on after the cut, where the choice does not depend on the question; else None.
        n_visual: visual tokens of every image after that cut.
        cost: lengths of its layers, for the operations that were spent on it.
    """

    keys: list[Tensor]
    values: list[Tensor]
    hidden: Tensor | None
    length: int
    kept: Tensor | None = None
    n_visual: tuple[int, ...] = ()
    cost: tuple[int, ...] = ()

    @property
    def tensors(self) -> list[Tensor | None]:
        return [*self.keys, *self.values, self.hidden, self.kept]

    @property
    def n_kept(self) -> int:
        """Columns after the cut, P'."""
        return self.length if self.kept is None else len(self.kept)


@dataclass
class Shared:
    """The prefixes of the B prompts of one prefill.

    Args:
        prefixes: one per prompt; None where there is nothing to share.
        starts: column of every prompt's first token.
        n_columns: N.
        width: columns that are computed; the N - width before them come from the store.
        until: first layer that gets all columns again.
        device: where the model runs.
        stores_choice: whether what goes on after the cut is stored; else it is chosen anew.
        cut: layer before which a stored choice is applied; None: there is none, or everything goes on.
    """

    prefixes: Sequence[Prefix | None]
    starts: list[int]
    n_columns: int
    width: int
    until: int
    device: torch.device
    stores_choice: bool = False
    cut: int | None = None
    masks: dict[str, Tensor | None] = field(default_factory=dict)
    rows: dict[bool, tuple[list[Prefix], Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored = self.n_columns - self.width

    # ------------------------------------------------------------------------------------------------ what is skipped

    def skipped(self, layer: int) -> list[int]:
        """Tokens of every prompt that a layer does not compute."""
        if layer < self.until:
            return [max(0, self.stored - start) if own else 0 for own, start in self._each()]
        if self.cut is None or layer < self.cut:
            return [0] * len(self.prefixes)
        lengths = self._lengths_after_cut()
        return [max(0, length - self.width) if own else 0 for length, own in zip(lengths, self.prefixes, strict=True)]

    def covers(self, layer: int) -> bool:
        """Whether a layer computes the last columns only."""
        return layer < self.until or self.cut is not None

    def _each(self) -> list[tuple[Prefix | None, int]]:
        return list(zip(self.prefixes, self.starts, strict=True))

    # ----------------------------------------------------------------------------------------------------- the layers

    def whole(self, hidden: Tensor) -> Tensor:
        """The hidden states of all columns from those of the last ones: (B, T, D) -> (B, N, D)."""
        own, index = self._index(after_cut=False)
        stored = torch.cat([prefix.hidden for prefix in own if prefix.hidden is not None], dim=1)[0]
        return torch.cat([stored[index.to(stored.device)].to(hidden.device), hidden], dim=1)

    def part(self, number: int, config: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The last columns of a layer's input, and its arguments for those; its cache gets the stored columns.

        Args:
            number: decoder layer.
            config: configuration of the text model.
            hidden: (B, S, D) all columns the layer works on, or already the last ones.
            kwargs: its arguments for all columns.
        """
        after_cut, cache = self.cut is not None and number >= self.cut, kwargs["past_key_values"]
        hidden = hidden[:, -self.width :]
        own, index = self._index(after_cut)
        if index.shape[1]:
            keys, values = (
                _gathered(torch.cat([layers[number] for layers in sides], dim=2)[0], index)
                for sides in ([prefix.keys for prefix in own], [prefix.values for prefix in own])
            )
            cache.update(keys, values, number)
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = self._causal(number, config, hidden, cache)
        elif mask.ndim == 4:
            mask = mask[:, :, -self.width :]
        tables = tuple(table[:, -self.width :] for table in kwargs["position_embeddings"])
        return hidden, {**kwargs, "attention_mask": mask, "position_embeddings": tables, "position_ids": None}

    def first(self, number: int) -> int:
        """Column of the first query of a layer."""
        return self._index(self.cut is not None and number >= self.cut)[1].shape[1]

    def _causal(self, number: int, config: Any, hidden: Tensor, cache: Any) -> Tensor | None:
        kind = layer_type(config, number)
        key = f"{kind} {self.cut is not None and number >= self.cut}"
        if key not in self.masks:
            self.masks[key] = causal_mask(config, number, hidden, None, cache)
        return self.masks[key]

    def _index(self, after_cut: bool) -> tuple[list[Prefix], Tensor]:
        """The different prefixes, and (B, C) where the stored columns are among all of theirs, one after the other.

        Padding gets anything: it is never looked at.
        """
        if after_cut not in self.rows:
            own: list[Prefix] = []
            offsets: dict[int, int] = {}
            total = 0
            for prefix in self.prefixes:
                if prefix is not None and id(prefix) not in offsets:
                    offsets[id(prefix)] = total
                    own.append(prefix)
                    total += prefix.n_kept if after_cut else prefix.length
            first = [offsets.get(id(prefix), 0) for prefix in self.prefixes]
            starts, n_columns = self.starts, self.n_columns
            if after_cut:
                lengths = self._lengths_after_cut()
                n_columns = max(lengths)
                starts = [n_columns - length for length in lengths]
            columns = torch.arange(max(0, n_columns - self.width))
            index = columns - torch.tensor(starts)[:, None] + torch.tensor(first)[:, None]
            self.rows[after_cut] = own, to_device(index.clamp(0, total - 1), self.device)
        return self.rows[after_cut]

    # -------------------------------------------------------------------------------------------- a choice made before

    def _lengths_after_cut(self) -> list[int]:
        """Tokens of every prompt after the cut."""
        return [
            self.n_columns - start - (0 if prefix is None else prefix.length - prefix.n_kept)
            for prefix, start in self._each()
        ]

    def choose(self, layer: int, state: PromptState, hidden: Tensor, positions: Tensor | None) -> Tensor:
        """Apply the stored choice to all columns: (B, N, D) -> (B, S, D).

        Args:
            layer: decoder layer whose input is cut.
            state: the prompt's cuts; the new stage is added.
            hidden: its input.
            positions: (B, N) of the prompt's columns, if they are to be counted anew; else None.
        """
        lengths = self._lengths_after_cut()
        size = max(lengths)
        chosen: list[Tensor] = []
        index = torch.zeros(len(lengths), size, dtype=torch.long)  # columns, or places in `chosen`
        base = torch.zeros_like(index)
        for row, (prefix, start) in enumerate(self._each()):
            n_prefix, n_kept = (0, 0) if prefix is None else (prefix.length, prefix.n_kept)
            left, middle = size - lengths[row], size - lengths[row] + n_kept
            if prefix is not None:
                places = sum(map(len, chosen))
                kept = prefix.kept if prefix.kept is not None else torch.arange(prefix.length, device=self.device)
                chosen.append(kept)
                index[row, left:middle] = torch.arange(1 + places, 1 + places + n_kept)
                base[row, left:middle] = start
            base[row, middle:] = torch.arange(start + n_prefix, self.n_columns)
        among = torch.cat([torch.zeros(1, dtype=torch.long, device=self.device), *chosen])
        index, base = to_device(torch.stack([index, base]), self.device)
        columns = among[index] + base
        valid = None
        if min(lengths) < size:
            shortest = torch.arange(size) >= size - torch.tensor(lengths)[:, None]
            valid = to_device(shortest, self.device, torch.bool)
        shift = None if positions is None else shift_of(state.layout, positions, lengths)
        state.stages.append(Stage(layer, columns, valid, columns, shift=shift))
        alive = [n for prefix in self.prefixes if prefix is not None for n in prefix.n_visual]
        state.n_visual = alive
        state.alive.append(alive)
        return take(hidden, columns)


def _gathered(stored: Tensor, index: Tensor) -> Tensor:
    """(G, S, d), (B, C) -> (B, G, C, d); a model's layers may be on several devices."""
    return stored[:, index.to(stored.device)].transpose(0, 1)
