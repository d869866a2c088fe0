"""Carrying out a selection: which columns go on, in which order, with which hidden states."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from llava.model.positions import shift_of
from llava.model.stages import Mixtures, PromptState, Stage, columns_within, pack, take
from llava.reduction.base import Selection
from llava.reduction.groups import Groups


def cut(
    state: PromptState,
    layer: int,
    hidden: Tensor,
    selection: Selection,
    groups: Groups,
    planned: list[int] | None,
    together: bool,
    positions: Tensor | None,
) -> Tensor:
    """Record a cut and return the hidden states that go on: (B, S, D) -> (B, S', D).

    Args:
        state: the prompt's cuts so far; the new stage is added.
        layer: decoder layer whose input is cut.
        selection: survivors.
        groups: the selection problems.
        planned: survivors per problem if the host knows them; else the device is asked.
        together: whether a problem spans all images of a prompt.
        positions: (B, N) of the prompt's columns, if they are to be counted anew; else None.
    """
    image, real = state.columns(state.newest)
    keep = (real & (image < 0)) | groups.scatter(selection.kept, *hidden.shape[:2])
    n_kept = (selection.kept & groups.valid).sum(1).tolist() if planned is None else list(planned)
    stage, origin = staged(state, state.newest, layer, keep, n_kept, together, positions)
    if selection.order is not None:
        stage, origin = _arranged(state, stage, origin, keep, selection, selection.order, groups)
    state.n_visual = n_kept
    state.alive.append(n_kept)
    state.stages.append(stage)
    hidden = take(hidden, origin)
    return hidden if stage.mixtures is None else stage.mixtures.put_into(hidden)


def cut_again(state: PromptState, stage: Stage, hidden: Tensor, n_prompt: int) -> Tensor:
    """Make a cut again that was chosen before: (B, S, D) -> (B, S', D)."""
    origin = columns_within(state.newest, stage.source, n_prompt)
    state.stages.append(stage)
    hidden = take(hidden, origin)
    return hidden if stage.mixtures is None else stage.mixtures.put_into(hidden)


def staged(
    state: PromptState,
    before: Stage | None,
    layer: int,
    keep: Tensor,
    n_kept: list[int],
    together: bool,
    positions: Tensor | None,
) -> tuple[Stage, Tensor]:
    """The stage that (B, S) kept columns of the stage `before` make, and their (B, S') columns there."""
    counts = state.counts(n_kept, together)
    columns, valid = pack(keep, counts)
    shift = None if positions is None else shift_of(state.layout, positions, counts)
    if before is None:
        return Stage(layer, columns, valid, columns, shift=shift), columns
    index, source = before.index.gather(1, columns), before.source.gather(1, columns)
    return Stage(layer, index, valid, source, shift=shift), columns


def _arranged(
    state: PromptState,
    stage: Stage,
    columns: Tensor,
    keep: Tensor,
    selection: Selection,
    order: Tensor,
    groups: Groups,
) -> tuple[Stage, Tensor]:
    """The same stage with the survivors of every problem in the order the selection gives, mixtures included."""
    sample = groups.sample[:, None]
    kept = selection.kept & groups.valid
    width = order.shape[1]
    ascending = (~kept).to(keep.dtype).int().argsort(dim=1, stable=True)[:, :width]
    counts = kept.sum(1, keepdim=True)
    counted = ascending.new_ones(1, width).cumsum(1) <= counts
    place = keep.long().cumsum(1) - 1 + (columns.shape[1] - keep.sum(1, keepdim=True))
    place = place[sample, groups.columns.gather(1, ascending)].masked_fill(~counted, -1)  # (R, M) in the new sequence
    origin = F.pad(columns, (0, 1)).index_put((sample, place), groups.columns.gather(1, order))[:, :-1]
    source = origin if state.newest is None else state.newest.source.gather(1, origin)
    mixtures = None
    if selection.values is not None and selection.mixed is not None:
        mixtures = Mixtures(sample, place.masked_fill(~selection.mixed, -1), selection.values)
    return Stage(stage.first_layer, stage.index, stage.valid, source, mixtures, stage.shift), origin
