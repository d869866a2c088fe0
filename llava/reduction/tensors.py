"""Small pure tensor functions shared by the methods."""

from collections.abc import Sequence

import torch
from torch import Tensor

COSINE_EPS = 1e-8  # smallest norm a vector is divided by, as torch's cosine similarity does


def to_device(values: Sequence | Tensor, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """Copy host numbers to the device without waiting for the work queued there."""
    tensor = torch.as_tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Divide (..., D) vectors by their Euclidean norm, in their own dtype; zero vectors stay zero."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(COSINE_EPS)


def largest_first(scores: Tensor, valid: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest valid scores of each row, descending; ties go to the lower index.

    Args:
        scores: (R, L).
        valid: (R, L); the others come last.

    Returns:
        (R, min(count, L)) indices.
    """
    scores = scores.masked_fill(~valid, -torch.inf)
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def l1_norm(vectors: Tensor) -> Tensor:
    """Sum of absolute values over the last axis, in the vectors' own dtype: (..., C) -> (...)."""
    return torch.linalg.vector_norm(vectors, ord=1, dim=-1)
