"""SparseVLM: question words that match the image rate the visual tokens; the best stay, some others are merged.

Source: "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference", arXiv:2410.04417; the
official code in three generations: v1.0 (count by the rank of the attention matrix), v1.5 (fixed counts; the current
default) and V2.0 (no merging, attention corrected for distance).
Differences from the official code: only the rows of the question are computed; batch > 1, several images; no random
noise in the clustering (ties go to the lower index); without a rater above the mean, all text tokens rate.

How it selects:
1. Raters, once: the text tokens after the image whose input embeddings match those of the image more than average
   (softmax over the text, mean over visual tokens).
2. At each event: the attention of the raters to every visual token in the layer that has run, mean over raters and
   heads. The tokens with most of it stay.
3. The best `merge_share` of the others are clustered by density peaks, and the mean of each cluster goes on behind the
   survivors (not in V2.0).
4. Positions are counted anew without gaps (V2.0: the original ones stay).

When not to use it: when no question follows the image, which is refused; where the cache of an image is to serve other
questions too, since the choice depends on the question; where cache and early layers count: the budget is a mean over
layers, and those before the first event see all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction import budgets
from llava.reduction.base import AUTO, ORIGINAL, LayerState, Selection
from llava.reduction.checks import option
from llava.reduction.clustering import MEAN_EPS, cluster_means, density_peaks
from llava.reduction.groups import Groups
from llava.reduction.registry import register
from llava.reduction.schedule import Schedule, layer_problems
from llava.reduction.tensors import largest_first

V10, V15, V20 = "v1.0", "v1.5", "v2.0"
OFFICIAL, CLEAN = "official", "clean"
DESIGNED_VISUAL = 576  # visual tokens the released counts are for
LISTS: dict[str, dict[int, tuple[int, ...]]] = {
    V15: {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    V20: {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
RANK_RULES = {192: (13.5, 0.0), 128: (9.0, 6.0), 64: (0.8, 0.0)}  # v1.0: keep -> (scale, bias)
EVENTS = {V10: (2, 6, 15, 19), V15: (2, 6, 15), V20: (2, 6, 15)}


@register("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(Schedule):
    """Cut the output of a few layers, guided by the question; the budget is a mean over layers.

    Args:
        keep, images: see `Schedule`.
        positions: see `Schedule`. As released, v1.0 and v1.5 renumber, V2.0 keeps the original ones.
        budget: "official": the released counts for keep = 192, 128, 96 or 64 (for 576 tokens; no others exist); any
            other `keep` has its schedule solved as for "mean": `keep` is the mean over all layers. "exact": `keep`
            tokens survive the last cut. Merged tokens count.
        mode: "v1.5", "v2.0" or "v1.0".
        variant: "official"; or "clean": an event that would remove nothing is left out (officially one token is merged
            with itself and moves to the end), merged tokens are exact means and stand where their cluster's centre
            stood.
        prune_layers: layers whose output is cut. None: 2, 6, 15 (v1.0 also 19); in models of fewer than 32 layers at
            the same depths.
        token_lists: counts kept by ranking at each event, before merging; overrules `keep`.
        merge_share: share of the pruned tokens that is merged.
        cluster_share: clusters per merged token.
        heads_kept: heads that rate in V2.0, those that look at the image most.

    Raises:
        ConfigurationError: an option is wrong, or a mean cannot be reached; on use also when no text follows the image.
    """

    keep: int | float | None = 192
    budget: str = option(budgets.OFFICIAL, choices=(budgets.OFFICIAL, budgets.MEAN, budgets.EXACT))
    mode: str = option(V15, choices=(V10, V15, V20))
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))
    prune_layers: tuple[int, ...] | None = option(None)
    token_lists: tuple[int, ...] | None = option(None)
    merge_share: float = option(0.3, low=0)
    cluster_share: float = option(0.1, low=0)
    heads_kept: int = option(14, low=1)

    paper: ClassVar[str] = "arXiv:2410.04417"
    score_name: ClassVar[str] = "attention of the rating words"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 96, 64)},
        **{f"{keep}+": {"keep": keep, "mode": V20} for keep in (192, 128, 96, 64)},
        "320": {"keep": 320},
    }

    def problems(self) -> list[str]:
        problems = layer_problems("prune_layers", self.prune_layers, 0)
        events = self.prune_layers or EVENTS[self.mode]
        if self.keep is None and self.token_lists is None:
            problems.append("keep=None needs token_lists: give counts, e.g. token_lists=(300, 200, 110), or keep=192.")
        if self.mode == V10 and (self.keep not in RANK_RULES or self.token_lists or self.budget != budgets.OFFICIAL):
            problems.append(
                "mode='v1.0' lets the content decide how many tokens stay: give keep=192, 128 or 64 with "
                "budget='official' and no token_lists, or another mode."
            )
        if self.token_lists is not None and len(self.token_lists) != len(events):
            problems.append(
                f"token_lists={self.token_lists!r} has {len(self.token_lists)} counts for {len(events)} events "
                "(prune_layers): give one count per event."
            )
        released = self.token_lists is None and self.keep in LISTS.get(self.mode, {}) and len(events) != 3
        if released and self.budget == budgets.OFFICIAL:
            problems.append(
                f"prune_layers={events!r} has {len(events)} events but the released counts are for 3: give "
                "token_lists, or budget='mean'."
            )
        return problems

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"attention", "rotary"} if self.mode == V20 else {"attention"})

    @property
    def position_policy(self) -> str:  # type: ignore[override]
        return ORIGINAL if self.positions == AUTO and self.mode == V20 else self.positions

    @property
    def layers(self) -> tuple[int, ...]:
        return self.after(self.prune_layers, EVENTS[self.mode])

    # ------------------------------------------------------------------------------------------------------- budgets

    def lists(self, n_visual: int, n_images: int = 1) -> list[int | None]:
        """Tokens kept by ranking at each event, None where nothing is to be done, for `n_visual` tokens at first."""
        if self.token_lists is not None:
            return [count * n_images for count in self.token_lists]
        if self.budget == budgets.OFFICIAL and self.keep in LISTS[self.mode]:
            return [count * n_images for count in LISTS[self.mode][int(self.keep)]]
        lists: list[int | None] = []
        now = n_visual
        for total in self._totals(n_visual, n_images):
            lists.append(None if total >= now else self._list_for(total, now))
            now = self._after(now, lists[-1])
        return lists

    def counts(self, n_visual: int, n_images: int = 1) -> list[int]:
        counts, now = [], n_visual
        for count in self.lists(n_visual, n_images):
            now = self._after(now, count)
            counts.append(now)
        return counts

    def n_kept(self, n_visual: int) -> int | None:
        return None if self.mode == V10 else super().n_kept(n_visual)

    def plan(self, groups: Groups) -> list[int] | None:
        if self.mode == V10:
            return None
        event, planned = self.event(groups), []
        for now, before, images in zip(groups.n_visual, groups.n_prompt, groups.n_images, strict=True):
            count = self.lists(before, images)[event]
            if self._moves_one(now, count):
                return None  # as many survive, but not in the same order
            planned.append(self._after(now, count))
        return planned

    def _totals(self, n_visual: int, n_images: int) -> list[int]:
        """Tokens wanted after each event, merged ones included, for a budget without released counts."""
        target = self.target(n_visual, n_images)
        shares = LISTS[V15][192]
        if len(self.layers) != len(shares):
            shares = tuple(shares[0] / 2**event for event in range(len(self.layers)))

        def shape(scale: float) -> list[int]:
            return [min(n_visual, int(scale * n_visual * share / DESIGNED_VISUAL)) for share in shares]

        if self.budget == budgets.EXACT:
            earlier = shape(target / n_visual * DESIGNED_VISUAL / shares[-1])[:-1]
            return [max(count, int(target)) for count in earlier] + [int(target)]
        counts = budgets.counts_for_mean(target, n_visual, self.layers, self.n_layers, shape)
        return budgets.settle_last(counts, target, n_visual, self.layers, self.n_layers)

    def _list_for(self, total: int, now: int) -> int:
        """The count kept by ranking that leaves `total` of `now` tokens once some of the others are merged."""
        return next((count for count in range(min(total, now - 1), 0, -1) if self._after(now, count) <= total), 0)

    def _after(self, now: int, count: int | None) -> int:
        """Visual tokens after an event that keeps `count` of `now` by ranking."""
        if count is None or now == 0 or (count >= now and self.variant == CLEAN):
            return now
        kept = min(count, now - 1)
        return kept + self._merged(now - kept)[1]

    def _moves_one(self, now: int, count: int | None) -> bool:
        return count is not None and count >= now > 0 and self.variant == OFFICIAL

    def _merged(self, n_pruned: int) -> tuple[int, int]:
        """(tokens that are merged, clusters) of `n_pruned` pruned tokens."""
        if self.mode == V20:
            return 0, 0
        members = int(self.merge_share * n_pruned) + 1
        return members, int(members * self.cluster_share) + 1

    # ----------------------------------------------------------------------------------------------------- selection

    def prepare(self, state: LayerState) -> Tensor:
        """Choose the text tokens that rate, from the language model's input embeddings: (R, T) bool."""
        groups = state.groups
        if min(groups.n_text) == 0:
            raise ConfigurationError(
                "SparseVLM rates visual tokens by the text after the image, and a prompt has none: put the question "
                "after the image, or take a method that needs no text, e.g. dart or fastv."
            )
        return text_raters(groups.visual(state.hidden), groups.text(state.hidden), groups.valid, groups.text_valid)

    def select(self, state: LayerState) -> Selection:
        groups, raters = state.groups, state.prepared
        rows: Any = None if self.mode == V20 else state.attention.head_mean()  # (R, T, L)
        scores = self._corrected_scores(state, raters) if rows is None else _rated(rows, raters)
        ranking = largest_first(scores, groups.valid, scores.shape[1])
        event, hidden, results = self.event(groups), groups.visual(state.hidden), []
        for row, now in enumerate(groups.n_visual):
            if self.mode == V10:
                count = self._count_by_rank(rows[row][raters[row], :now])
            else:
                count = self.lists(groups.n_prompt[row], groups.n_images[row])[event]
            results.append(self._survivors(ranking[row, :now], hidden[row], now, count))
        return _selection(results, groups.valid)

    def scores(self, state: LayerState) -> Tensor:
        if self.mode == V20:
            return self._corrected_scores(state, state.prepared)
        return _rated(state.attention.head_mean(), state.prepared)

    def _survivors(self, ranking: Tensor, hidden: Tensor, now: int, count: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of one problem: survivors in order (indices into L), hidden states of the mixtures, where these stand."""
        nothing = hidden[:0], ranking[:0]
        if count is None or (self._after(now, count) == now and not self._moves_one(now, count)):
            return ranking.sort().values, *nothing
        kept = min(count, now - 1)
        stay, pruned = ranking[:kept].sort().values, ranking[kept:]
        members, clusters = self._merged(now - kept)
        if not clusters:
            return stay, *nothing
        centres, values = merge(hidden[pruned[:members]], clusters, MEAN_EPS if self.variant == OFFICIAL else 0.0)
        order = torch.cat([stay, pruned[centres]])
        place = torch.arange(kept, kept + clusters, device=order.device)
        if self.variant == CLEAN:
            order, before = order.sort()
            place = before.argsort()[kept:]
        return order, values, place

    def _count_by_rank(self, rows: Tensor) -> int | None:
        """v1.0: the rank of the raters' attention decides; None when the attention has full rank in the tokens."""
        scale, bias = RANK_RULES[int(self.keep or 0)]
        rank = int(torch.linalg.matrix_rank(rows.float()))
        return None if rank == rows.shape[1] else int(rank * scale + bias)

    def _corrected_scores(self, state: LayerState, raters: Tensor) -> Tensor:
        """V2.0: attention divided by what distance alone would give, mean over raters and the heads that look most."""
        groups, attention = state.groups, state.attention
        weights = torch.where(raters[..., None], 1 / distance_attention(state.rotary, groups), 0)
        per_head = attention.weighted(weights).masked_fill(~groups.valid[:, None], 0)  # (R, H, L)
        best = per_head.sum(2).topk(min(self.heads_kept, per_head.shape[1]), dim=1).indices
        chosen = per_head.gather(1, best[..., None].expand(-1, -1, per_head.shape[2]))
        return chosen.mean(1) / raters.sum(1, keepdim=True)


def _rated(rows: Tensor, raters: Tensor) -> Tensor:
    """(R, T, L) attention rows, (R, T) bool -> (R, L) attention of the raters, mean over them."""
    return ((rows * raters[..., None]).float().sum(1) / raters.sum(1, keepdim=True)).to(rows.dtype)


def text_raters(visual: Tensor, text: Tensor, visual_valid: Tensor, text_valid: Tensor) -> Tensor:
    """Text tokens whose share of the visual tokens' attention is above the mean; all of them if none is.

    Args:
        visual: (R, L, D) embeddings of the visual tokens; text: (R, T, D) of the tokens after the image.
        visual_valid: (R, L) and text_valid: (R, T), False at padding.

    Returns:
        (R, T) bool.
    """
    match = (visual @ text.transpose(1, 2)).masked_fill(~text_valid[:, None], -torch.inf).softmax(-1)
    n_visual, n_text = (valid.sum(1, keepdim=True) for valid in (visual_valid, text_valid))
    share = (match * visual_valid[..., None]).float().sum(1) / n_visual
    share = share.to(visual.dtype).masked_fill(~text_valid, 0)
    raters = (share > (share.float().sum(1, keepdim=True) / n_text).to(share.dtype)) & text_valid
    return torch.where(raters.any(1, keepdim=True), raters, text_valid)


def merge(tokens: Tensor, n_clusters: int, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cluster (M, D) tokens: (C,) indices of the centres and (C, D) means; `eps` is added to the member counts."""
    centres, cluster = density_peaks(tokens, n_clusters)
    return centres, cluster_means(tokens, cluster, n_clusters, eps)


def distance_attention(rotary: tuple[Tensor, Tensor], groups: Groups) -> Tensor:
    """(R, T, L) logits between text and visual tokens that all-ones queries and keys would have after rotation.

    Args:
        rotary: (B, S, d) cosines and sines of all columns.
        groups: the problems.
    """
    cos, sin = (table.float() for table in rotary)
    scale = cos.shape[-1] ** -0.5
    products = (groups.text(table) @ groups.visual(table).transpose(1, 2) for table in (cos, sin))
    return sum(products) * scale


def _selection(results: list[tuple[Tensor, Tensor, Tensor]], valid: Tensor) -> Selection:
    """Pad the problems' survivors to one width."""
    width = max(len(order) for order, _, _ in results)
    values = next((mixtures for _, mixtures, _ in results if len(mixtures)), None)
    orders = valid.new_zeros(len(results), width, dtype=torch.long)
    kept, mixed = torch.zeros_like(valid), valid.new_zeros(len(results), width)
    merged = None if values is None else values.new_zeros(len(results), width, values.shape[1])
    for row, (order, mixtures, place) in enumerate(results):
        orders[row, : len(order)] = order
        kept[row, order] = True
        mixed[row, place] = True
        if merged is not None and len(place):
            merged[row, place] = mixtures
    return Selection(kept, orders, merged, mixed)
