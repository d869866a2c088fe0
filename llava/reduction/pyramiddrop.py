"""PyramidDrop: at a few depths keep a smaller and smaller share of the visual tokens, those the last token looks at.

Source: "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction",
arXiv:2410.17247; the official code: ranking with the queries and keys of the layer about to run (the paper: of the
layer that has run), truncated shares of the original count, positions counted anew after every cut.
Differences from the official code: batch > 1, left padding, all images of a prompt, the true last token as the query,
grouped key heads, ties broken by the lower index; only one attention row is computed.

How it selects: before each layer of `layer_list`:
1. The attention that the prompt's last token would pay to every visual token left, with the queries and keys of the
   layer about to run, mean over heads.
2. Those with most of it stay: a share of the original number, which gets smaller from cut to cut.
3. Positions are counted anew without gaps.

When not to use it: where memory for the cache or time of the first layers is what counts, since they see all tokens
(the released schedule leaves 270 of 576 on average, and its first cut is after layer 8); at small budgets, for which no
official schedule exists; see also FastV, whose score it shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from llava.reduction import budgets
from llava.reduction.base import LayerState, last_query
from llava.reduction.checks import option
from llava.reduction.fastv import top_tokens
from llava.reduction.groups import Groups
from llava.reduction.registry import register
from llava.reduction.schedule import Schedule, layer_problems
from llava.reduction.tensors import to_device

RELEASED_LAYERS, RELEASED_RATIOS = (8, 16, 24), (0.5, 0.25, 0.125)
EARLY_LAYERS = (2, 10, 20)  # reach means that the released layers cannot


@register("pyramiddrop")
@dataclass(frozen=True)
class PyramidDrop(Schedule):
    """Cut before each layer of `layer_list` to a share of the original count.

    Args:
        keep, budget, images, positions: see `Schedule`. With `keep`, the shares keep their proportions and are scaled
            to the budget. Such schedules are not official: none was published for 192, 128 or 64 tokens.
        layer_list: cuts are made after so many layers have run. None: 8, 16, 24 as released; with a `keep`, or with
            other shares than the released ones, 2, 10, 20; in models of fewer than 32 layers at the same depths.
        image_token_ratio_list: share of the original count that survives each cut.

    Raises:
        ConfigurationError: lists of different lengths, shares that rise, layers that do not (on construction); or a
            mean that the layers cannot reach (on use).
    """

    layer_list: tuple[int, ...] | None = option(None)
    image_token_ratio_list: tuple[float, ...] = option(RELEASED_RATIOS)

    paper: ClassVar[str] = "arXiv:2410.17247"
    needs: ClassVar[frozenset[str]] = frozenset({"attention_ahead"})
    score_name: ClassVar[str] = "attention of the last prompt token"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {},
        "192": {"image_token_ratio_list": (0.5417, 0.2709, 0.1355)},
        "128": {"image_token_ratio_list": (0.32, 0.16, 0.08)},
        "64": {"image_token_ratio_list": (0.0973, 0.0487, 0.0244)},
        "320": {"keep": 320},
    }

    def problems(self) -> list[str]:
        ratios, layers = self.image_token_ratio_list, self.layer_list
        problems = layer_problems("layer_list", layers, 1)
        if not ratios or list(ratios) != sorted(ratios, reverse=True) or not 0 <= ratios[-1] <= ratios[0] <= 1:
            problems.append(f"image_token_ratio_list={ratios!r} is not usable: give shares in [0, 1], none rising.")
        if len(ratios) != len(layers or RELEASED_LAYERS):
            problems.append(
                f"image_token_ratio_list={ratios!r} has {len(ratios)} shares for {len(layers or RELEASED_LAYERS)} cuts "
                "(layer_list): give one share per layer."
            )
        if self.keep is not None and ratios and not ratios[-1] > 0:
            problems.append(f"image_token_ratio_list={ratios!r} ends with 0, which keep={self.keep!r} cannot scale.")
        return problems

    @property
    def layers(self) -> tuple[int, ...]:
        if self.layer_list is not None:
            return self.layer_list
        released = self.keep is None and self.image_token_ratio_list == RELEASED_RATIOS
        layers = RELEASED_LAYERS if released else EARLY_LAYERS
        return budgets.scaled_layers(layers, self.designed_for, self.n_layers)

    def counts(self, n_visual: int, n_images: int = 1) -> list[int]:
        ratios = self.image_token_ratio_list
        if self.keep is None:
            return [int(n_visual * ratio) for ratio in ratios]
        target = self.target(n_visual, n_images)

        def shape(scale: float) -> list[int]:
            return [min(n_visual, int(n_visual * scale * ratio)) for ratio in ratios]

        if self.budget == budgets.EXACT:
            last = int(target)
            return [*(max(count, last) for count in shape(target / n_visual / ratios[-1])[:-1]), last]
        counts = budgets.counts_for_mean(target, n_visual, self.layers, self.n_layers, shape)
        return budgets.settle_last(counts, target, n_visual, self.layers, self.n_layers)

    def queries(self, groups: Groups) -> tuple[Tensor, Tensor]:
        return last_query(groups)

    def select(self, state: LayerState) -> Tensor:
        """Keep the tokens the last token would look at most in the layer about to run."""
        groups = state.groups
        counts = to_device(self.survivors(groups), state.hidden.device)
        return top_tokens(self.scores(state), groups.valid, counts)

    def scores(self, state: LayerState) -> Tensor:
        return state.attention.head_mean()[:, 0]
