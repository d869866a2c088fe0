"""DART's criterion on projected features: a case worked out on paper, and a slow version that goes pivot by pivot."""

import math

import pytest
import torch

from llava.reduction.dart_features import DARTFeatures, least_duplicated
from tests.reduction import images


def vectors_at(angles, norms):
    return torch.tensor(
        [[n * math.cos(math.radians(a)), n * math.sin(math.radians(a))] for a, n in zip(angles, norms, strict=True)]
    )


def test_on_paper():
    """Token 4 (L1 norm 5) is the first pivot and claims what points away from it: 3, then 5. Token 2 (4.0) is next."""
    vectors = vectors_at((0, 10, 25, 170, 0, 90), (1, 2, 3, 1, 5, 1))
    assert least_duplicated(vectors, 2, 1).tolist() == [3, 4]
    assert least_duplicated(vectors, 3, 1).tolist() == [3, 4, 5]
    assert least_duplicated(vectors, 2, 2).tolist() == [2, 4]
    assert least_duplicated(vectors, 4, 2).tolist() == [2, 3, 4, 5]


def slow(vectors, count, pivots):
    vectors = vectors.double()
    norms = [sum(abs(float(x)) for x in vector) for vector in vectors]

    def cosine(a, b):
        return float(vectors[a] @ vectors[b] / vectors[a].norm() / vectors[b].norm())

    chosen = sorted(range(len(vectors)), key=lambda i: (-norms[i], i))[: min(pivots, count)]
    turns = list(chosen)
    quotas = [0] * len(turns)
    for number in range(count - len(turns)):
        quotas[number % len(turns)] += 1
    for pivot, quota in zip(turns, quotas, strict=True):
        free = [i for i in range(len(vectors)) if i not in chosen]
        chosen += sorted(free, key=lambda i: (cosine(pivot, i), i))[:quota]
    return sorted(chosen)


@pytest.mark.parametrize(("count", "pivots"), [(1, 8), (8, 8), (9, 8), (20, 8), (21, 1), (40, 3)])
def test_slow_version_agrees(count, pivots):
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
    assert least_duplicated(vectors, count, pivots).tolist() == slow(vectors, count, pivots)


@pytest.mark.parametrize(("keep", "count"), [(1, 1), (5, 5), (0.5, 18), (100, 36)])
def test_keeps_exactly_what_is_asked(keep, count):
    method, image = DARTFeatures(keep=keep), images.image(side=(6, 6))
    kept = method.select_image(image)
    assert method.n_kept(36) == kept.count == count and kept.values is None


def test_newlines_of_tiles_compete_like_other_tokens():
    image = images.image(side=(3, 3), grid=(1, 2), size=(30, 60))
    assert DARTFeatures(keep=7).select_image(image).count == 7
