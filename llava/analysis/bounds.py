"""Bounds on how far a token set is from what is kept of it: the paper's, and forms that hold for unequal norms.

Source: lemmas 1 and 2 of the paper (arXiv:2502.11494). Its bound sqrt(2 (1 - eps)) B takes a token and its pivot to be
equally long; `docs/theory.md` has the counter-example and the derivations of the forms here.

X are all tokens, R those that are kept, p a pivot (always kept), x a dropped token, eps a lower bound of cos(p, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SLACK = 1e-9  # relative; double precision of squared norms


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (n, m) between the rows of a (n, D) and b (m, D), in double precision."""
    # From differences: the usual expansion loses small distances between long vectors.
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (n, m) between the rows of a (n, D) and b (m, D), in double precision; 0 with a zero vector (Eq. 7)."""
    a, b = a.double(), b.double()
    lengths = a.norm(dim=1)[:, None] * b.norm(dim=1)
    return torch.where(lengths > 0, (a @ b.T) / lengths.clamp_min(torch.finfo(torch.double).tiny), 0.0).clamp(-1, 1)


def paper_bound(eps: float, largest: float) -> float:
    """sqrt(2 (1 - eps)) B of lemma 1, where `largest` is B, the largest norm."""
    return (2 * (1 - eps)) ** 0.5 * largest


def pair_bound(pivot: Tensor, token: Tensor, eps: float | Tensor) -> Tensor:
    """Largest distance of tokens and pivots of these norms whose cosine is at least eps.

    |p - x|^2 = (|p| - |x|)^2 + 2 (1 - cos) |p| |x| <= (|p| - |x|)^2 + 2 (1 - eps) |p| |x|.

    Args:
        pivot, token: norms, of shapes that broadcast.
    """
    return ((pivot - token) ** 2 + 2 * (1 - eps) * pivot * token).clamp_min(0).sqrt()


def best_pivot(pivots: Tensor, tokens: Tensor, eps: float) -> Tensor:
    """Index (n,) of the pivot with the smallest `pair_bound` for every token: the one whose norm is nearest eps |x|.

    As a function of |p| the bound is |p|^2 - 2 eps |x| |p| + |x|^2, a parabola with its least value at eps |x|.

    Args:
        pivots: (m,) norms.
        tokens: (n,) norms.
    """
    return (pivots[None] - eps * tokens[:, None]).abs().argmin(1)


def every_pivot_bound(pivots: Tensor, tokens: Tensor, eps: float) -> float:
    """Bound of d_H(X, R) when every dropped token has a cosine of at least eps with every pivot (the paper's rule).

    max over x of min over p of `pair_bound`: any pivot will do, so each token takes its best.

    Args:
        pivots: (m,) norms.
        tokens: (n,) norms of the dropped tokens.
    """
    nearest = pivots[best_pivot(pivots, tokens, eps)]
    return float(pair_bound(nearest, tokens, eps).max())


def one_pivot_bound(cosine: Tensor, pivots: Tensor, tokens: Tensor) -> float:
    """Bound of d_H(X, R) when every dropped token has one pivot with a cosine of at least eps.

    Only the pivot of the largest cosine is known to satisfy it, so that one counts.

    Args:
        cosine: (n, m) of tokens and pivots; eps is the least of the rows' largest.
        pivots: (m,) norms.
        tokens: (n,) norms of the dropped tokens.
    """
    best = cosine.max(1)
    return float(pair_bound(pivots[best.indices], tokens, best.values.min()).max())


def norm_range_bound(eps: float, largest: float, smallest: float = 0.0) -> float:
    """Least bound of |p - x| that holds for all norms in [smallest, largest] and cosines of at least eps.

    `pair_bound` is convex in either norm, so it is largest at a corner: both norms B, or one B and one b.
    """
    unequal = (largest - smallest) ** 2 + 2 * (1 - eps) * largest * smallest
    return max(unequal, 2 * (1 - eps) * largest**2) ** 0.5


def lemma_applies(eps: float, largest: float, smallest: float = 0.0) -> bool:
    """Whether the paper's bound follows from what is known of the norms: b >= (2 eps - 1) B."""
    return smallest >= (2 * eps - 1) * largest


@dataclass(frozen=True)
class Bounds:
    """One token set and what was kept of it.

    Args:
        dropped: tokens dropped.
        distance: d_H(X, R).
        to_pivots: the farthest a dropped token is from its nearest pivot; at least `distance`.
        largest, smallest: norm of the longest and of the shortest among dropped tokens and pivots (B, b).
        eps_every: least cosine of a dropped token with any pivot (the paper's rule: duplicate of every pivot).
        eps_one: least cosine of a dropped token with its most similar pivot.
        paper_every, paper_one: the paper's bound with either eps.
        every, one: the bounds that hold for unequal norms, with either eps.
        ranged: `norm_range_bound` with `eps_every`, for which only B and b have to be known.
        applies: `lemma_applies` with `eps_every`.
        broken: share of the dropped tokens that are farther from their most similar pivot than the paper's bound says
            with the cosine of this pair in place of eps.
    """

    dropped: int
    distance: float
    to_pivots: float
    largest: float
    smallest: float
    eps_every: float
    eps_one: float
    paper_every: float
    paper_one: float
    every: float
    one: float
    ranged: float
    applies: bool
    broken: float

    def holds(self, bound: float) -> bool:
        """Whether the measured distance is at most `bound`, rounding aside."""
        return self.distance <= bound * (1 + SLACK) + SLACK * self.largest


def measure(tokens: Tensor, kept: Tensor, pivots: Tensor) -> Bounds | None:
    """Measure d_H(X, R) and the bounds on it; None if nothing was dropped.

    Args:
        tokens: (N, D) all of them.
        kept: (N,) True at those kept.
        pivots: (N,) True at pivots, all of them kept.
    """
    dropped, anchors = tokens[~kept].double(), tokens[pivots].double()
    if not len(dropped):
        return None
    cosine = cosines(dropped, anchors)
    lengths, anchor_lengths = dropped.norm(dim=1), anchors.norm(dim=1)
    norms = torch.cat([lengths, anchor_lengths])
    largest, smallest = float(norms.max()), float(norms.min())
    eps_every, eps_one = float(cosine.min()), float(cosine.max(1).values.min())
    return Bounds(
        dropped=len(dropped),
        distance=float(distances(dropped, tokens[kept]).min(1).values.max()),
        to_pivots=float(distances(dropped, anchors).min(1).values.max()),
        largest=largest,
        smallest=smallest,
        eps_every=eps_every,
        eps_one=eps_one,
        paper_every=paper_bound(eps_every, largest),
        paper_one=paper_bound(eps_one, largest),
        every=every_pivot_bound(anchor_lengths, lengths, eps_every),
        one=one_pivot_bound(cosine, anchor_lengths, lengths),
        ranged=norm_range_bound(eps_every, largest, smallest),
        applies=lemma_applies(eps_every, largest, smallest),
        broken=_broken(dropped, anchors, cosine, largest),
    )


def _broken(tokens: Tensor, pivots: Tensor, cosine: Tensor, largest: float) -> float:
    """Share of the tokens whose distance to the most similar pivot is above sqrt(2 (1 - cos)) B, rounding aside."""
    best = cosine.max(1)
    apart = (tokens - pivots[best.indices]).norm(dim=1)
    return float((apart > (2 * (1 - best.values)).sqrt() * largest * (1 + SLACK) + SLACK * largest).double().mean())
