"""What each cut left of an image and how its tokens were ranked there: the notes that pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.model.layout import Layout
from llava.model.shortprompt import ShortPrompt
from llava.model.stages import Stage
from llava.reduction.groups import Groups
from llava.reduction.image import Kept

NOWHERE = float("nan")


@dataclass(frozen=True)
class Step:
    """One cut, per sample and image.

    Args:
        layer: decoder layer whose input was cut; 0 stands for a cut before the language model.
        indices: ascending offsets within the image of the tokens that are left; without those that were merged and
            have no place of their own.
        scores: one number per token of the whole image, NaN where the token was gone already or had none; None: the
            method ranks by no number, or nobody asked for scores (`Pruning(..., scores=True)`).
        score_name: what the scores are, in words.
    """

    layer: int
    indices: list[list[Tensor]]
    scores: list[list[Tensor]] | None = None
    score_name: str = ""


@dataclass(frozen=True)
class Ranking:
    """Scores of one cut inside the language model.

    Args:
        layer: decoder layer whose input is cut.
        scores: (B, N) by prompt column, NaN where a column has none.
        name: what they are, in words.
    """

    layer: int
    scores: Tensor
    name: str


def ranking(layout: Layout, before: Stage | None, scores: Tensor, groups: Groups, name: str) -> Ranking:
    """Put (R, L) scores of the selection problems at the columns of the prompt.

    Args:
        layout: the prompt.
        before: the newest cut before this one; None: there was none.
        groups: the problems, on the columns that cut left.
    """
    valid = groups.valid
    sample = groups.sample[:, None].expand_as(valid)[valid]
    columns = groups.columns[valid]
    if before is not None:
        columns = before.source[sample, columns]
    spread = torch.full(layout.image.shape, NOWHERE, device=scores.device)
    spread[sample, columns] = scores[valid].float()
    return Ranking(groups.layer, spread, name)


def inside_steps(layout: Layout, cuts: list[tuple[int, list[list[Tensor]]]], rankings: list[Ranking]) -> list[Step]:
    """The steps of cuts inside the language model.

    Args:
        layout: the prompt the language model got.
        cuts: layer, and what was left (see `Step.indices`), of each.
        rankings: those that were noted.
    """
    known = {each.layer: each for each in rankings}
    steps = []
    for layer, indices in cuts:
        noted = known.get(layer)
        scores = None if noted is None else _per_image(layout, noted.scores.cpu())
        steps.append(Step(layer, indices, scores, "" if noted is None else noted.name))
    return steps


def whole_steps(short: ShortPrompt, inside: list[Step], score_name: str) -> list[Step]:
    """The steps of a prompt that was shortened before the language model, that cut included.

    Args:
        short: the short prompt.
        inside: steps whose offsets are those of the short prompt.
        score_name: what the scores of the first cut are, in words.
    """
    rows = len(inside[0].indices) if inside else len(short.kept)
    kept = short.repeated(rows)
    all_offsets = [[torch.arange(one.count) for one in images] for images in kept]
    scores = None
    if any(one.scores is not None for images in kept for one in images):
        lengths = short.whole_lengths(rows)[1]
        scores = [
            [_own_scores(one, n) for one, n in zip(images, row, strict=True)]
            for images, row in zip(kept, lengths, strict=True)
        ]
    first = Step(0, short.whole_indices(all_offsets), scores, score_name if scores else "")
    return [first, *(_whole(short, step) for step in inside)]


def _whole(short: ShortPrompt, step: Step) -> Step:
    """The same step with offsets of the whole images."""
    scores = None
    if step.scores is not None:
        rows = len(step.scores)
        kept, lengths = short.repeated(rows), short.whole_lengths(rows)[1]
        scores = [
            [_placed(one.indices, own, n) for one, own, n in zip(images, row, sizes, strict=True)]
            for images, row, sizes in zip(kept, step.scores, lengths, strict=True)
        ]
    return Step(step.layer, short.whole_indices(step.indices), scores, step.score_name)


def _own_scores(kept: Kept, n_visual: int) -> Tensor:
    return torch.full((n_visual,), NOWHERE) if kept.scores is None else kept.scores.float().cpu()


def _placed(indices: Tensor | None, scores: Tensor, n_visual: int) -> Tensor:
    """(K,) scores of the tokens at `indices` -> (n_visual,); tokens without a place take none along."""
    placed = torch.full((n_visual,), NOWHERE)
    if indices is not None:
        placed[indices.cpu()] = scores
    return placed


def _per_image(layout: Layout, values: Tensor) -> list[list[Tensor]]:
    """(B, N) -> per sample and image, the values of its tokens."""
    return [
        [values[sample][layout.host_image[sample] == image] for image in range(len(images))]
        for sample, images in enumerate(layout.visual)
    ]
