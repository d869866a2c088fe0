"""Density-peak clustering: few tokens stand for many, each the mean of those nearest to a dense, lonely one."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN_EPS = 1e-6  # added to the number of members by the official code of SparseVLM


def density_peaks(tokens: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Choose centres of high density that are far from denser ones, and assign every token to the nearest.

    Distances are Euclidean over the square root of D. Density is exp(-mean squared distance to the `n_clusters` nearest
    tokens, itself included). No noise is added: of two equally dense tokens the earlier counts as denser.

    Args:
        tokens: (M, D).
        n_clusters: at most M.

    Returns:
        (n_clusters,) indices of the centres, best first; (M,) number of each token's cluster.
    """
    distance = torch.cdist(tokens.float(), tokens.float()) / tokens.shape[1] ** 0.5
    density = (-distance.topk(n_clusters, dim=1, largest=False).values.square().mean(1)).exp()
    earlier = torch.ones_like(distance, dtype=torch.bool).tril(-1)
    denser = (density[None, :] > density[:, None]) | ((density[None, :] == density[:, None]) & earlier)
    loneliness = distance.masked_fill(~denser, torch.inf).amin(1).minimum(distance.max())
    centres = (density * loneliness).sort(descending=True, stable=True).indices[:n_clusters]
    nearest = distance[centres].argmin(0)
    nearest[centres] = torch.arange(n_clusters, device=tokens.device)
    return centres, nearest


def cluster_means(tokens: Tensor, cluster: Tensor, n_clusters: int, eps: float = 0.0) -> Tensor:
    """Mean of the tokens of each cluster: (M, D), (M,) -> (n_clusters, D).

    Args:
        eps: added to the number of members.
    """
    member = (cluster == torch.arange(n_clusters, device=tokens.device)[:, None]).float()  # (C, M)
    return (member @ tokens.float() / (member.sum(1, keepdim=True) + eps)).to(tokens.dtype)
