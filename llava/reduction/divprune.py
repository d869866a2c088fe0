"""DivPrune: keep the visual tokens that are most different from each other (greedy max-min diversity).

Source: "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", arXiv:2503.02175; official code,
the selection function.
Differences from the official code: every image of every sample has a pool of its own; a running minimum instead of all
pairs per step; zero vectors count as different from everything; variant "distinct" never takes a token twice.

How it selects:
1. Cosine distances between all projected tokens of the image.
2. The first token chosen is the one whose nearest neighbour is farthest; every next one is the token whose nearest
   chosen token is farthest, until there are `keep`.
3. The chosen go on in reading order.

When not to use it: where the question says which part of the image matters, which the method does not read; with
thousands of tokens per image, since memory grows with the square of their number and the `keep` choices are made one
after the other; for small things on a varied background, whose every patch is as different as the thing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.reduction.checks import option
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.registry import register

OFFICIAL, DISTINCT = "official", "distinct"


@register("divprune")
@dataclass(frozen=True)
class DivPrune(BeforeLLM):
    """Choose tokens one by one, each as far as possible (cosine distance) from those already chosen.

    Needs no attention, so it works with every vision tower and every kernel.

    Args:
        keep: visual tokens left per image (count), or a fraction in (0, 1] of that image's tokens, rounded (half to
            even).
        positions: see `BeforeLLM`.
        variant: "official": a token may be taken again when all that are left equal chosen ones, and then stands in the
            prompt twice; "distinct": chosen tokens are out.
    """

    variant: str = option(OFFICIAL, choices=(OFFICIAL, DISTINCT))

    paper: ClassVar[str] = "arXiv:2503.02175"
    depends_on_question: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 1 / 9},  # LLaVA-NeXT: of the tokens an image really has; 320 of 2880
    }

    def asked(self, n_visual: int) -> int:
        asked = round(n_visual * self.keep) if isinstance(self.keep, float) else self.keep
        return max(1, min(n_visual, asked))

    def select_image(self, image: ImageState) -> Kept:
        order = select_diverse(image.features, self.asked(image.n_visual), distinct=self.variant == DISTINCT)
        return Kept(order.sort().values)


def select_diverse(vectors: Tensor, count: int, distinct: bool = False) -> Tensor:
    """Choose by greedy max-min cosine distance.

    Args:
        vectors: (N, D); compared in their own dtype, as the official code does.
        count: how many to choose.
        distinct: whether a chosen vector cannot be chosen again.

    Returns:
        (count,) indices in the order of selection; ties go to the lower index.
    """
    norms = vectors.norm(dim=-1, keepdim=True)
    unit = vectors / torch.where(norms > 0, norms, torch.ones_like(norms))
    distance = 1 - unit @ unit.T  # (N, N)
    if len(vectors) == 1:
        return torch.zeros(count, dtype=torch.long, device=vectors.device)
    # The nearest but one: the nearest is the vector itself, with a distance of about 0.
    nearest = distance.topk(2, dim=0, largest=False).values[1]
    chosen = torch.empty(count, dtype=torch.long, device=vectors.device)
    taken = torch.zeros_like(nearest, dtype=torch.bool)
    for step in range(count):
        scores = nearest.masked_fill(taken, -torch.inf) if distinct else nearest
        index = scores.argmax()
        chosen[step] = index
        taken[index] = True
        row = distance.index_select(0, index[None])[0]
        nearest = row if step == 0 else torch.minimum(nearest, row)
    return chosen
