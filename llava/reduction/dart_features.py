"""DART on features: DART's duplication criterion on the projected tokens, before the language model.

Source: the criterion of DART, arXiv:2502.11494, section 3; carried to the projector's output by this package. It is for
engines that give every layer the same tokens (vLLM), and for prompts whose first layers are too dear.
Differences from the official code: the official DART cuts inside the language model, where it has keys, hidden states
and the question. Here pivots are the tokens of largest L1 norm instead of largest key norm, cosines are those of the
projected tokens, there are no text pivots, pivots claim in the order of their norms, and exactly `keep` tokens go on.

How it selects:
1. Pivots: the `pivots` projected tokens of the image with the largest L1 norm.
2. The pivots take turns, the largest first. Each claims its quota of the tokens that are still free: those with the
   smallest cosine to it.
3. Pivots and claimed tokens go on in reading order.

When not to use it: where pruning inside the language model is possible; there `dart` chooses with the question and with
what two layers made of the image, and the first layers still see every token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.reduction import released
from llava.reduction.base import COUNTS
from llava.reduction.checks import option
from llava.reduction.dart import BY_NORM, select_groups
from llava.reduction.groups import Groups
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.registry import register
from llava.reduction.tensors import l1_norm


@register("dart_features")
@dataclass(frozen=True)
class DARTFeatures(BeforeLLM):
    """Keep pivots and the tokens least similar to them, once, before the language model.

    Needs neither attention nor text, so it works with every vision tower, every kernel and every engine, and a choice
    holds for all questions about an image.

    Args:
        keep, positions: see `BeforeLLM`.
        pivots: pivots per image; fewer if `keep` has no place for them. 8 are as many as DART has of both kinds.
    """

    pivots: int = option(8, low=1)

    paper: ClassVar[str] = "arXiv:2502.11494"
    depends_on_question: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = COUNTS

    def select_image(self, image: ImageState) -> Kept:
        return Kept(least_duplicated(image.features, self.asked(image.n_visual), self.pivots))


def least_duplicated(features: Tensor, count: int, pivots: int) -> Tensor:
    """Choose pivots by norm and the tokens least similar to them; no wait for the device.

    Args:
        features: (N, D) projected tokens of one image; norms and cosines are computed in their dtype.
        count: how many to choose, 1 to N.
        pivots: how many of those are pivots; limited to `count`.

    Returns:
        (count,) ascending indices.
    """
    n_visual, pivots = len(features), min(pivots, count)
    image = torch.zeros(1, n_visual, dtype=torch.long, device=features.device)
    groups = Groups.build(image, torch.ones_like(image, dtype=torch.bool), [(0, 0)], [n_visual], [0], [1])
    kept = select_groups(
        features[None],
        l1_norm(features)[None],
        groups,
        quotas=[released.quotas(n_visual, count, pivots, 0, 0, released.EXACT)],
        pivots_visual=pivots,
        pivots_text=0,
        order=BY_NORM,
    )
    return (~kept[0]).to(torch.int8).argsort(stable=True)[:count].sort().values
