"""FasterVLM's choice against the official code's, the card's example and sorting by hand."""

import pytest
import torch

from llava.reduction.fastervlm import select_tokens
from llava.reduction.tiles import reading_order
from tests.reduction import recorded


@pytest.mark.parametrize("name", recorded.names("fastervlm"))
def test_recorded_choice(name, golden):
    hyper, arrays = recorded.load("fastervlm", name)
    kept = select_tokens(arrays["cls_rows"], hyper["visual_token_num"])
    assert torch.equal(kept, arrays["kept"])
    assert torch.equal(torch.zeros_like(arrays["mask"]).scatter(1, kept, 1), arrays["mask"])


def test_example_of_two_heads():
    rows = torch.tensor([[0.05, 0.30, 0.10, 0.20, 0.15, 0.20], [0.10, 0.11, 0.27, 0.05, 0.27, 0.20]])
    assert select_tokens(rows[None], 3).tolist() == [[1, 4, 5]]


def test_more_than_there_are_keeps_all_and_ties_keep_the_lower():
    rows = torch.tensor([[[0.2, 0.2, 0.2, 0.2]]])
    assert select_tokens(rows, 9).tolist() == [[0, 1, 2, 3]]
    assert select_tokens(rows, 2).tolist() == [[0, 1]]


def test_two_crops_side_by_side_interleave_row_by_row():
    kept = torch.tensor([[False, True, True, False], [True, False, False, True]])
    assert reading_order(kept, (1, 2), (2, 2)).tolist() == [1, 4, 2, 7]  # c0.1, c1.0, c0.2, c1.3


def test_equals_sorting_one_by_one():
    rows = torch.rand(3, 4, 50, generator=torch.Generator().manual_seed(0)).softmax(-1)
    for tile, kept in zip(rows, select_tokens(rows, 13).tolist(), strict=True):
        sums = [sum(float(head[n]) for head in tile) for n in range(50)]
        assert kept == sorted(sorted(range(50), key=lambda n: -sums[n])[:13])
