"""Bounds on the Hausdorff distance hold on random data: the general ones always, the paper's for equal norms."""

import math

import pytest
import torch

from llava.analysis import bounds
from tests.analysis.token_sets import drawn

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies
SETTINGS = hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)


def slow_distance(tokens, kept):
    """The Hausdorff distance written out, with math alone."""
    rows = tokens.tolist()
    left = [row for row, there in zip(rows, kept.tolist(), strict=True) if there]
    return max(min(math.dist(x, r) for r in left) for x in rows)


@SETTINGS
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0, 3))
def test_the_general_bounds_hold_whatever_the_norms(seed, width, spread):
    tokens, kept, pivots = drawn(seed, width=width, spread=spread)
    found = bounds.measure(tokens, kept, pivots)
    assert found.distance == pytest.approx(slow_distance(tokens, kept))
    assert found.distance <= found.to_pivots * (1 + 1e-12)
    for bound in (found.every, found.one, found.ranged):
        assert found.holds(bound)
    if found.applies:  # condition (4) of docs/theory.md
        assert found.holds(found.paper_every)


@SETTINGS
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_papers_bound_holds_when_all_are_equally_long(seed, width):
    tokens, kept, pivots = drawn(seed, width=width)
    found = bounds.measure(torch.nn.functional.normalize(tokens), kept, pivots)
    assert found.broken == 0 and found.applies and found.holds(found.paper_every) and found.holds(found.paper_one)
    assert found.every == pytest.approx(found.paper_every, abs=1e-6)


@SETTINGS
@given(st.floats(-1, 1), st.floats(0.1, 5), st.lists(st.floats(0.05, 5), min_size=1, max_size=6))
def test_the_best_pivot_is_the_one_of_the_smallest_bound(eps, token, pivots):
    pivots, tokens = torch.tensor(pivots, dtype=torch.double), torch.tensor([token], dtype=torch.double)
    every = [math.sqrt(max(0.0, p * p - 2 * eps * p * token + token * token)) for p in pivots.tolist()]
    chosen = int(bounds.best_pivot(pivots, tokens, eps))
    assert every[chosen] == pytest.approx(min(every), abs=1e-7)
    assert bounds.every_pivot_bound(pivots, tokens, eps) == pytest.approx(min(every), abs=1e-7)
