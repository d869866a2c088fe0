"""FasterVLM: keep the visual tokens that the vision encoder's [CLS] token looks at most.

Source: "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference Faster",
arXiv:2412.01818v1 (later versions describe a successor); official code, the image-encoding function.
Differences from the official code: only the needed attention row is computed; counts above the number of tokens are
clamped; ties broken by the lower index.

How it selects:
1. The attention of [CLS] to every patch in one block of the vision tower (softmax over all tokens), mean over heads.
2. In every tile the patches with most of it go on, in reading order.

When not to use it: with vision towers that have no [CLS] token; where the question is about something beside the main
object, since [CLS] knows no question; where a large uniform thing takes the budget, since nothing keeps the method from
choosing many patches that say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from llava.reduction.checks import option
from llava.reduction.image import BeforeLLM, ImageState, Kept
from llava.reduction.ranking import best_ascending, best_mask
from llava.reduction.registry import register
from llava.reduction.tensors import to_device
from llava.reduction.tiles import as_canvas, in_place, quotas, shown_tokens

OFFICIAL, CLEAN = "official", "clean"


@register("fastervlm")
@dataclass(frozen=True)
class FasterVLM(BeforeLLM):
    """Select by [CLS] attention, once, before the language model.

    Args:
        keep: visual tokens left per image, shared evenly by its tiles; or a fraction in (0, 1] of each tile's tokens.
        positions: see `BeforeLLM`; with tiles, "original" needs variant "clean".
        layer: block of the vision tower whose attention is read, 0-based; None: the one that feeds the projector.
        variant: matters for tiles only. "official": padding competes, and tokens go on as the stitched canvas is read,
            without newlines; "clean": only tokens that show the image, where the unpruned model has them.

    Raises:
        UnsupportedModel: the tower has no [CLS] token (on use).
    """

    layer: int | None = None
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))

    paper: ClassVar[str] = "arXiv:2412.01818"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    score_name: ClassVar[str] = "attention of [CLS]"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 1 / 9},  # LLaVA-NeXT: 64 of each tile's 576, hence 320 for five tiles
    }

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.layer,)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        known = n_tiles == 1 or (self.variant == OFFICIAL and not isinstance(self.keep, float))
        return self.asked(n_visual) if known else None

    def scores(self, image: ImageState) -> Tensor:
        return image.layer(self.layer).cls_attention().to(image.features.dtype).mean(1)  # (T, N)

    def select_image(self, image: ImageState) -> Kept:
        scores = self.scores(image)
        if self.variant == CLEAN:
            scores = scores.masked_fill(~shown_tokens(image), -1)
        counts = quotas(self.keep, *scores.shape)
        kept = best_mask(scores, to_device(counts, scores.device))
        count = sum(counts) if len(counts) == 1 else None
        return as_canvas(image, kept, count) if self.variant == OFFICIAL else in_place(image, kept, count=count)


def select_tokens(cls_attention: Tensor, keep: int) -> Tensor:
    """Keep what [CLS] attends to most, tile by tile.

    Args:
        cls_attention: (tiles, heads, N) softmax rows of [CLS] over the patches, in the model's dtype.
        keep: tokens left per tile.

    Returns:
        (tiles, min(keep, N)) ascending patch indices.
    """
    return best_ascending(cls_attention.mean(1), keep)
