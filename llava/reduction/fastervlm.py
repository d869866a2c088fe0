"""FasterVLM: keep the visual tokens that the vision encoder's [CLS] token looks at most.

Source: "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference Faster",
arXiv:2412.01818v1 (later versions describe a successor); official code, the image-encoding function.
Differences from the official code: only the needed attention row is computed; counts above the number of tokens are
clamped; ties broken by the lower index.
"""

from __future__ import annotations

from torch import Tensor

from llava.reduction.ranking import best_ascending


def select_tokens(cls_attention: Tensor, keep: int) -> Tensor:
    """Keep what [CLS] attends to most, tile by tile.

    Args:
        cls_attention: (tiles, heads, N) softmax rows of [CLS] over the patches, in the model's dtype.
        keep: tokens left per tile.

    Returns:
        (tiles, min(keep, N)) ascending patch indices.
    """
    return best_ascending(cls_attention.mean(1), keep)
