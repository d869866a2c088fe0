"""PruMerge and PruMerge+ against the official code's tokens, the card's example and a slow version."""

import pytest
import torch

from llava.reduction.prumerge import (
    add_adaptive_grid,
    add_distinct_grid,
    add_fixed_grid,
    cls_scores,
    count_outliers,
    merge,
)
from llava.reduction.ranking import best_first
from tests.reduction import recorded
from tests.reduction.slow_vision import prumerge


def chosen(scores, hyper):
    n = len(scores)
    count = int(count_outliers(scores)) if hyper["adaptive"] else int(n * hyper["ratio"])
    assert count == hyper["K"]
    if hyper["mode"] == "PruMerge":
        return best_first(scores, count)
    return add_adaptive_grid(scores, count) if hyper["adaptive"] else add_fixed_grid(scores, count)


@pytest.mark.parametrize("name", recorded.names("prumerge"))
def test_recorded_tokens(name, golden):
    hyper, arrays = recorded.load("prumerge", name)
    scores = cls_scores(arrays["q_cls"], arrays["k"])
    centres = chosen(scores, hyper)
    assert torch.equal(centres, arrays["selected"])
    out = merge(arrays["x"], scores, arrays["k"][1:], centres, hyper["neighbours"])
    assert out.shape == arrays["out"].shape
    assert float((out - arrays["out"]).abs().max()) <= 1e-5 * float(arrays["x"].abs().max())


X = torch.tensor([[1, 0], [2, 1], [0, 3], [4, 4], [-1, 2], [5, 0.0]])
KEYS = torch.tensor([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8], [-1, 0], [0.96, 0.28]])
A = torch.tensor([0.02, 0.04, 0.30, 0.03, 0.01, 0.25])


def test_example_of_six_tokens():
    assert count_outliers(A) == 0
    centres = best_first(A, 2)
    assert centres.tolist() == [2, 5]
    expected = torch.tensor([[0.20, 3.16], [5.10, 0.04], [0.21, 0.18]])
    assert torch.allclose(merge(X, A, KEYS, centres, neighbours=2), expected, atol=1e-6)


def test_the_softmax_spans_all_tokens_and_the_full_width():
    keys = torch.tensor([[[2.0, 0, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0]]])
    expected = torch.tensor([1.0, 0.0, 2.0]).softmax(0)[1:]  # 1 * key / sqrt(4)
    assert torch.allclose(cls_scores(torch.tensor([[1.0, 0, 0, 0]]), keys)[0], expected)


@pytest.mark.parametrize(
    "outliers, grid", [(32, 96), (40, 144), (49, 192), (64, 192), (96, 288), (97, 575), (400, 575)]
)
def test_number_of_grid_points(outliers, grid):
    scores = torch.zeros(576)
    scores[575 - torch.arange(outliers)] = 1.0  # the last patches; count those of the grid among them
    centres = add_adaptive_grid(scores, outliers)
    step = {96: 6, 144: 4, 192: 3, 288: 2, 575: 1}[grid]
    among = sum(point % step == 0 for point in range(576 - outliers, 575))
    assert len(centres) == outliers + grid - among
    assert len(centres.unique()) == len(centres)


@pytest.mark.parametrize("outliers", [96, 64, 32, 72, 100])
def test_fixed_grid_has_as_many_points_as_outliers(outliers):
    assert len(add_fixed_grid(torch.rand(576), outliers)) == 2 * outliers


def test_distinct_grid_repeats_nothing():
    centres = add_distinct_grid(torch.rand(50), 12, 13)
    assert len(centres.unique()) == 25


def test_few_tokens_have_fewer_neighbours():
    out = merge(X, A, KEYS, torch.arange(6), neighbours=32)
    assert out.shape == (7, 2) and torch.equal(out[-1], torch.zeros(2))
    assert torch.allclose(out[0], X[0] + (A[1:, None] * X[1:]).sum(0))


@pytest.mark.parametrize("plus", [False, True])
def test_equals_slow_version(plus):
    generator = torch.Generator().manual_seed(3)
    x, keys = torch.randn(60, 5, generator=generator), torch.randn(60, 4, generator=generator)
    a = torch.rand(60, generator=generator).softmax(0)
    centres = add_fixed_grid(a, 15) if plus else best_first(a, 15)
    assert (len(centres.unique()) < len(centres)) == plus
    assert torch.allclose(merge(x, a, keys, centres, 7), prumerge(x, a, keys, centres.tolist(), 7), atol=1e-5)
