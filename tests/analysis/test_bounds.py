"""Bounds on the Hausdorff distance: the paper's counter-example, and hand-made cases."""

import math

import numpy as np
import pytest
import torch

from llava.analysis import bounds
from tests.analysis.token_sets import drawn


def test_the_counter_example_of_one_dimension():
    tokens = torch.tensor([[1.0], [0.1]])
    only_pivot = torch.tensor([True, False])
    found = bounds.measure(tokens, only_pivot, only_pivot)
    assert found.eps_every == pytest.approx(1.0)  # above 0.99, so the paper drops the token
    assert found.distance == pytest.approx(0.9)
    assert bounds.paper_bound(0.99, 1.0) == pytest.approx(math.sqrt(0.02))
    assert not found.holds(bounds.paper_bound(0.99, 1.0)) and not found.holds(found.paper_every)
    assert found.every == pytest.approx(0.9) and found.holds(found.every) and found.holds(found.one)
    assert not found.applies and found.broken == 1
    assert found.holds(bounds.norm_range_bound(0.99, 1.0, 0.1))
    pair = bounds.pair_bound(torch.tensor(1.0), torch.tensor(0.1), 0.99)
    assert float(pair) == pytest.approx(math.sqrt(0.81 + 0.02 * 0.1))


def test_the_papers_bound_fails_on_a_share_of_random_sets():
    found = [bounds.measure(*drawn(seed, width=1, spread=2.0)) for seed in range(200)]
    aligned = [one for one in found if one.eps_every > 0.99]
    assert aligned and all(one.paper_every < 1e-6 * one.largest and not one.holds(one.paper_every) for one in aligned)
    opposite = [one for one in found if one.eps_every <= 0.5]
    assert opposite and all(one.holds(one.paper_every) for one in opposite)


@pytest.mark.parametrize(
    ("eps", "largest", "smallest"), [(0.9, 2.0, 0.5), (0.3, 1.0, 0.0), (0.99, 1.0, 0.1), (0.8, 1, 1)]
)
def test_the_bound_of_a_range_of_norms_is_reached_and_never_passed(eps, largest, smallest):
    norms = np.linspace(smallest, largest, 41)
    angle = math.acos(eps)
    reached = max(
        math.dist((p, 0.0), (x * math.cos(turn), x * math.sin(turn)))
        for p in norms
        for x in norms
        for turn in (0.0, angle / 2, angle)
    )
    assert bounds.norm_range_bound(eps, largest, smallest) == pytest.approx(reached)
    assert bounds.lemma_applies(eps, largest, smallest) == (bounds.paper_bound(eps, largest) >= reached - 1e-9)


def test_the_distance_is_hausdorffs_between_all_tokens_and_those_kept():
    tokens = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [4.0, 3.0]])
    kept = torch.tensor([True, False, True, False])
    rows, left = tokens.tolist(), tokens[kept].tolist()
    there = max(min(math.dist(row, one) for one in left) for row in rows)
    back = max(min(math.dist(one, row) for row in rows) for one in left)
    assert bounds.measure(tokens, kept, kept).distance == pytest.approx(max(there, back)) == 4.0


def test_a_zero_vector_is_similar_to_nothing_and_nothing_dropped_is_nothing_to_measure():
    assert bounds.cosines(torch.zeros(1, 2), torch.ones(1, 2)).item() == 0
    whole = torch.tensor([True, True])
    assert bounds.measure(torch.eye(2), whole, whole) is None
    tokens = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    found = bounds.measure(tokens, torch.tensor([True, False]), torch.tensor([True, False]))
    assert found.distance == 2 and found.holds(found.every) and found.holds(found.one)


def test_small_distances_between_long_vectors_survive_single_precision():
    long = torch.full((1, 64), 1000.0)
    near = long.clone()
    near[0, 0] += 0.01
    assert float(bounds.distances(long, near)) == pytest.approx(0.01, rel=1e-2)
