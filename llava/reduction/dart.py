"""DART: a few pivots claim the visual tokens that duplicate them least; the rest are duplicates and go.

Source: "Stop Looking for 'Important Tokens' in Multimodal Language Models: Duplication Matters More", arXiv:2502.11494;
selection and budgets as in the official code (the paper's epsilon threshold is there a fixed quota per pivot, and
claims are disjoint and sequential). The pivot criteria of the paper's Table 6 are a reconstruction.
Differences from the official code: batch > 1, several images per prompt, quotas limited to what is left, ties broken by
the lower index.

How it selects:
1. Pivots: the `pivots_visual` visual tokens, and the `pivots_text` text tokens after the image, whose keys of layer - 1
   (after rotary embedding) have the largest L1 norm.
2. The pivots take turns. Each claims its quota of the visual tokens that are still free: those with the smallest cosine
   to it, on the output of layer - 1 after the decoder's final norm.
3. Visual pivots and claimed tokens go on, in reading order and with their original positions.

When not to use it: where the vision tower and the first layers are what costs, since they still see every token; on
short prompts, where choosing can take longer than it saves; where the pruned cache of an image is to serve other
questions too, since the text pivots come from the question (pivots_text=0 does without them); where no more than `keep`
tokens may survive, unless with budget="exact" (as released, 128 leaves 132).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction import budgets, released
from llava.reduction.base import InLLM, LayerState
from llava.reduction.checks import option, private
from llava.reduction.groups import Groups
from llava.reduction.registry import register
from llava.reduction.setorder import cpython_set_order
from llava.reduction.tensors import l1_norm, largest_first, to_device, unit_vectors

K_NORM, V_NORM, ATTENTION, RANDOM = "k_norm", "v_norm", "attention", "random"
CRITERIA = (*(f"{what}_{end}" for what in (K_NORM, V_NORM, ATTENTION) for end in ("max", "min")), RANDOM)
CPYTHON_SET, BY_NORM = "cpython_set", "norm"
NATIVE, FLOAT32 = "native", "float32"


@register("dart")
@dataclass(frozen=True)
class DART(InLLM):
    """Prune duplicates once, before decoder layer `layer`.

    With several images in a prompt every image has its own visual pivots, quota and claims by default; the text pivots,
    taken after the last image, are shared (`images="together"`: one set of pivots over the union of the images).

    Args:
        keep, layer, images: see `InLLM`. As released, the count that survives is not `keep` but
            pivots_visual + (pivots_visual + pivots_text) * quota, e.g. 132 for keep=128; see `budget`.
        pivots_visual: visual pivots per image; they always survive.
        pivots_text: pivots among the text tokens after the last visual token; a shorter text gives fewer.
        criterion: how pivots are chosen: largest or smallest L1 norm of the key (after rotary embedding) or of the
            value of layer - 1, attention received there (mean over heads and queries), or at random.
        order: "cpython_set" as released (the order in which CPython iterates a set of the pivots' indices), or "norm":
            visual then text pivots, each from the best score down.
        budget: "released" quota floor(keep / pivots); "released_next", the LLaVA-NeXT form of it; "exact", exactly
            `keep` tokens survive; "mean", so many survive exactly that `keep` is the mean over all layers.
        scoring: "native" computes norms and cosines in the model's dtype, as released; "float32" in single precision.
        seed: for criterion "random".

    Raises:
        ConfigurationError: an option is wrong (on construction), or an image has fewer tokens than `pivots_visual`, or
            there is no pivot at all (on use).
    """

    pivots_visual: int = option(4, low=0)
    pivots_text: int = option(4, low=0)
    criterion: str = option("k_norm_max", choices=CRITERIA)
    order: str = option(CPYTHON_SET, choices=(CPYTHON_SET, BY_NORM))
    budget: str = option(released.RELEASED, choices=(*released.BUDGETS, budgets.MEAN))
    scoring: str = option(NATIVE, choices=(NATIVE, FLOAT32))
    seed: int = option(0, low=0)
    released_rule: str = private("")

    paper: ClassVar[str] = "arXiv:2502.11494"
    score_name: ClassVar[str] = "pivot score"

    @classmethod
    def from_released(
        cls,
        family: str = released.LLAVA,
        reduction_ratio: float | None = None,
        max_num_tokens: int | None = None,
        **options: Any,
    ) -> DART:
        """Return DART with the budget rule of a family's released script; `released_rule` says which value counted.

        Args:
            family: "llava": max_num_tokens wins over the ratio; "llava_next": both are ignored, 320; "qwen2_vl": the
                ratio only.
            reduction_ratio: fraction of visual tokens removed, in [0, 1).
            max_num_tokens: budget, at least 1.
            options: further fields.
        """
        rule = released.released_budget(family, reduction_ratio, max_num_tokens)
        return cls(**{"keep": rule.keep, "budget": rule.budget, **options, "released_rule": rule.sentence})

    def problems(self) -> list[str]:
        problems = []
        if self.pivots_visual + self.pivots_text == 0:
            problems.append("pivots_visual=0 and pivots_text=0 leave no pivot: give one, e.g. pivots_visual=4.")
        if self.budget == released.EXACT and isinstance(self.keep, int) and self.keep < self.pivots_visual:
            problems.append(
                f"keep={self.keep} with budget='exact' cannot hold pivots_visual={self.pivots_visual}: visual pivots "
                f"always survive; give keep >= {self.pivots_visual} or pivots_visual <= {self.keep}."
            )
        return problems

    @property
    def depends_on_question(self) -> bool:  # type: ignore[override]
        """Text pivots come from the question; attention is received from it, and a draw is seeded by it."""
        return self.pivots_text > 0 or self.criterion.startswith((ATTENTION, RANDOM))

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # it depends on the criterion
        what = {K_NORM: "keys", V_NORM: "values", ATTENTION: "received", RANDOM: "seeds"}
        return frozenset({"normed", what[self.criterion.removesuffix("_max").removesuffix("_min")]})

    def n_kept(self, n_visual: int) -> int:
        return released.count(n_visual, self.pivots_visual, self._quotas(n_visual, self.pivots_text, 1))

    def plan(self, groups: Groups) -> list[int]:
        return [
            released.count(n_visual, self.pivots_visual, self._quotas(n_visual, n_text, n_images))
            for n_visual, n_text, n_images in _sizes(groups)
        ]

    def select(self, state: LayerState) -> Tensor:
        groups = state.groups
        return select_groups(
            self._precise(state.normed),
            self._pivot_scores(state),
            groups,
            quotas=[self._quotas(*sizes) for sizes in _sizes(groups)],
            pivots_visual=self.pivots_visual,
            pivots_text=self.pivots_text,
            order=self.order,
        )

    def scores(self, state: LayerState) -> Tensor:
        """By which visual pivots are chosen; what else survives is decided by similarity to them, pivot by pivot."""
        return state.groups.visual(self._pivot_scores(state))

    def _quotas(self, n_visual: int, n_text: int, n_images: int) -> list[int]:
        text_used = min(self.pivots_text, n_text)
        _refuse_pivots(n_visual, self.pivots_visual, text_used)
        keep, budget = self.budget_of(n_images), self.budget
        if budget == budgets.MEAN:
            keep, budget = self.count_for_mean(n_visual, n_images), released.EXACT
        return released.quotas(n_visual, keep, self.pivots_visual, self.pivots_text, text_used, budget)

    def _precise(self, vectors: Tensor) -> Tensor:
        return vectors.float() if self.scoring == FLOAT32 else vectors

    def _pivot_scores(self, state: LayerState) -> Tensor:
        """(B, S), larger is better; minus zero and ties fall to the lower index either way."""
        if self.criterion == RANDOM:
            return _random_scores(state, self.seed)
        what, _, end = self.criterion.rpartition("_")
        if what == ATTENTION:
            scores = state.received
        else:
            scores = l1_norm(self._precise(state.keys if what == K_NORM else state.values))
        return scores if end == "max" else -scores


def select_tokens(
    hidden: Tensor,
    keys: Tensor,
    visual: Tensor,
    *,
    quota: int,
    pivots_visual: int = 4,
    pivots_text: int = 4,
    order: str = CPYTHON_SET,
    scores: Tensor | None = None,
) -> Tensor:
    """Choose the surviving visual tokens of one unpadded sample, as the official selection function does.

    One wait for the device in all (to learn how many tokens there are).

    Args:
        hidden: (N, D) output of layer K-1 after the decoder's final norm.
        keys: (N, C) keys of layer K-1 after rotary embedding, heads flattened.
        visual: (N,) bool, True at the visual tokens.
        quota: tokens each pivot claims (the released rules: floor(budget / pivots)); the last claims stop when nothing
            is left.
        pivots_visual: pivots among the visual tokens; they survive.
        pivots_text: pivots among the tokens after the last visual one; fewer if there are fewer.
        order: "cpython_set" or "norm", see `DART`.
        scores: (N,) pivot scores, larger is better; default: L1 norm of the keys.

    Returns:
        Ascending absolute indices of the kept visual tokens; empty if there is no visual token.

    Raises:
        ConfigurationError: negative quota, more visual pivots than visual tokens, or no pivot at all.
    """
    if quota < 0:
        raise ConfigurationError(f"quota={quota} is negative: give the number of tokens each pivot claims, e.g. 16.")
    visual = visual.bool()
    after = visual.flip(0).cumsum(0).flip(0) == 0
    n_visual, n_text = torch.stack([visual.sum(), after.sum()]).tolist()
    if n_visual == 0:
        return torch.empty(0, dtype=torch.long, device=hidden.device)
    text_used = min(pivots_text, n_text)
    _refuse_pivots(n_visual, pivots_visual, text_used)
    image = visual.long() - 1
    groups = Groups.build(image[None], torch.ones_like(visual)[None], [(0, 0)], [n_visual], [n_text], [1])
    quotas = [quota] * (pivots_visual + text_used)
    kept = select_groups(
        hidden[None],
        (l1_norm(keys) if scores is None else scores)[None],
        groups,
        quotas=[quotas],
        pivots_visual=pivots_visual,
        pivots_text=pivots_text,
        order=order,
    )
    survivors_first = (~kept[0]).to(torch.int8).argsort(stable=True)
    return groups.columns[0, survivors_first[: released.count(n_visual, pivots_visual, quotas)]]


def select_groups(
    hidden: Tensor,
    scores: Tensor,
    groups: Groups,
    *,
    quotas: list[list[int]],
    pivots_visual: int,
    pivots_text: int,
    order: str = CPYTHON_SET,
) -> Tensor:
    """Solve R selection problems at once, without waiting for the device.

    Args:
        hidden: (B, S, D) output of layer K-1 after the decoder's final norm.
        scores: (B, S) pivot scores, larger is better.
        groups: the problems.
        quotas: per problem, tokens claimed by each of its pivots, in the order in which they claim.
        pivots_visual, pivots_text: pivots per modality; problems with less text use fewer.
        order: "cpython_set" or "norm", see `DART`.

    Returns:
        (R, L) bool, True at survivors: visual pivots and claimed tokens.
    """
    features = unit_vectors(groups.visual(hidden))  # (R, L, D)
    pivots = largest_first(groups.visual(scores), groups.valid, pivots_visual)  # (R, p) positions in L
    text_pivots = largest_first(groups.text(scores), groups.text_valid, pivots_text)  # (R, q) positions in T
    text_indices = groups.text_columns.gather(1, text_pivots)
    pivot_features = torch.cat(
        [_rows(features, pivots), unit_vectors(hidden[groups.sample[:, None], text_indices])], dim=1
    )
    absolute = torch.cat([groups.columns.gather(1, pivots), text_indices], dim=1) - groups.first[:, None]
    used = [len(claims) for claims in quotas]
    turns = _turns(absolute, used, order)
    pivot_features = _rows(pivot_features, turns)

    claimed = torch.zeros_like(groups.valid).scatter(1, pivots, True)
    most = [max(claims[turn] if turn < len(claims) else 0 for claims in quotas) for turn in range(max(used))]
    limits = to_device([claims + [0] * (max(used) - len(claims)) for claims in quotas], hidden.device)
    for turn, width in enumerate(most):
        width = min(width, claimed.shape[1])
        if width == 0:
            continue
        free = groups.valid & ~claimed
        similarity = (features * pivot_features[:, turn : turn + 1]).sum(-1)  # cosine, in the dtype of `hidden`
        least = similarity.masked_fill(~free, torch.inf).sort(dim=1, stable=True).indices[:, :width]
        within = torch.arange(width, device=hidden.device) < limits[:, turn : turn + 1]
        claimed = claimed | (torch.zeros_like(claimed).scatter(1, least, within) & free)
    return claimed & groups.valid


def _sizes(groups: Groups) -> Iterator[tuple[int, int, int]]:
    """(n_visual, n_text, n_images) of every problem."""
    return zip(groups.n_visual, groups.n_text, groups.n_images, strict=True)


def _turns(absolute: Tensor, used: list[int], order: str) -> Tensor:
    """(R, P) positions of the pivots in the order in which they claim; unused ones come last."""
    listed = torch.arange(absolute.shape[1], device=absolute.device).expand_as(absolute)
    if order == BY_NORM:
        return listed
    if len(set(used)) == 1:
        return cpython_set_order(absolute[:, : used[0]])
    turns = listed.clone()
    for size in sorted(set(used)):
        rows = to_device([row for row, count in enumerate(used) if count == size], absolute.device)
        turns[rows, :size] = cpython_set_order(absolute[rows, :size])
    return turns


def _rows(vectors: Tensor, index: Tensor) -> Tensor:
    """(R, L, D), (R, P) -> (R, P, D)."""
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))


def _random_scores(state: LayerState, seed: int) -> Tensor:
    """(B, S) scores that put each problem's candidates in a random order, the same on every device."""
    groups = state.groups
    scores = torch.zeros(state.hidden.shape[:2], device=state.hidden.device)
    for row, (own, n_visual, n_text) in enumerate(zip(state.seeds, groups.n_visual, groups.n_text, strict=True)):
        generator = torch.Generator().manual_seed(own + seed)
        draws = [torch.randperm(n, generator=generator).float().tolist() for n in (n_visual, n_text)]
        for drawn, columns in zip(draws, (groups.columns[row], groups.text_columns[row]), strict=True):
            values = to_device(drawn, scores.device, scores.dtype)
            scores[groups.sample[row], columns[: len(drawn)]] = values
    return scores


def _refuse_pivots(n_visual: int, pivots_visual: int, text_used: int) -> None:
    if pivots_visual > n_visual:
        raise ConfigurationError(
            f"pivots_visual={pivots_visual} is more than the {n_visual} visual tokens of an image: "
            f"give pivots_visual <= {n_visual}."
        )
    if pivots_visual + text_used == 0:
        raise ConfigurationError(
            "There is no pivot: pivots_visual=0 and no text follows the image. Give pivots_visual=4, or put the "
            "question after the image."
        )
