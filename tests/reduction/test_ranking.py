"""Choosing by score and sharing a budget."""

import pytest
import torch

from llava.reduction.ranking import best_ascending, best_first, best_mask, share


def test_ties_go_to_the_lower_index():
    scores = torch.tensor([[1.0, 3, 3, 2, 3]])
    assert best_first(scores, 2).tolist() == [[1, 2]]
    assert best_first(scores, 9).tolist() == [[1, 2, 4, 3, 0]]
    assert best_ascending(scores, 4).tolist() == [[1, 2, 3, 4]]


def test_a_quota_for_each_row():
    mask = best_mask(torch.tensor([[1.0, 3, 2], [1, 3, 2], [1, 3, 2]]), torch.tensor([0, 2, 5]))
    assert mask.tolist() == [[False] * 3, [False, True, True], [True] * 3]


@pytest.mark.parametrize(
    "weights, total, limits, expected",
    [
        ([2, 1, 1], 5, [9, 9, 9], [3, 1, 1]),  # 2.5, 1.25, 1.25
        ([1, 1, 1], 5, [9, 9, 9], [2, 2, 1]),
        ([0, 0], 4, [3, 3], [2, 2]),
        ([9, 1], 8, [4, 9], [4, 4]),  # the first is full
        ([1, 0], 8, [4, 9], [4, 4]),
        ([3, 1], 99, [2, 4], [2, 4]),  # more than fits
        ([1, 1], 0, [2, 4], [0, 0]),
    ],
)
def test_shares_of_a_budget(weights, total, limits, expected):
    assert share(torch.tensor(weights), total, torch.tensor(limits)).tolist() == expected


def test_sharing_loses_nothing():
    generator = torch.Generator().manual_seed(0)
    for total in range(0, 200, 17):
        weights, limits = torch.rand(7, generator=generator), torch.randint(0, 40, (7,), generator=generator)
        given = share(weights, total, limits)
        assert given.sum() == min(total, limits.sum()) and (given <= limits).all() and (given >= 0).all()
