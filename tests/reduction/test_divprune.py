"""DivPrune against recorded choices, the card's examples and a slow version written from the paper's words."""

import math

import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction.divprune import DivPrune, select_diverse
from tests.reduction import recorded


@pytest.mark.parametrize("name", recorded.names("divprune"))
def test_recorded_choices(golden, name):
    hyper, arrays = recorded.load("divprune", name)
    order = select_diverse(arrays["V"], hyper["m"])
    assert torch.equal(order, arrays["order"])
    assert DivPrune(keep=hyper["ratio"]).n_kept(hyper["n_visual"]) == hyper["m"]


def vectors_at(angles, norms):
    return torch.tensor(
        [[n * math.cos(math.radians(a)), n * math.sin(math.radians(a))] for a, n in zip(angles, norms, strict=True)]
    )


def test_example_of_the_card():
    vectors = vectors_at((0, 10, 25, 90, 100, 180), (1, 2, 3, 1, 5, 1))
    assert select_diverse(vectors, 3).tolist() == [5, 0, 3]


def test_degenerate_example_of_the_card_takes_a_token_twice_unless_told_not_to():
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    assert select_diverse(vectors, 3).tolist() == [3, 0, 0]
    assert select_diverse(vectors, 3, distinct=True).tolist() == [3, 0, 1]


def slow(vectors, count):
    """Greedy max-min distance in double precision, pair by pair."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
    far = [[1 - float(a @ b) for b in unit] for a in unit]
    n = len(unit)
    chosen = [max(range(n), key=lambda i: (min(far[i][j] for j in range(n) if j != i), -i))]
    while len(chosen) < count:
        rest = [i for i in range(n) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (min(far[i][j] for j in chosen), -i)))
    return chosen


@pytest.mark.parametrize("distinct", [False, True])
def test_slow_version_agrees(distinct):
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
    assert select_diverse(vectors, 15, distinct).tolist() == slow(vectors, 15)


@pytest.mark.parametrize(
    ("keep", "count"), [(192, 192), (1 / 3, 192), (2 / 9, 128), (1 / 9, 64), (0.098, 56), (1.0, 576)]
)
def test_counts_of_the_card(keep, count):
    assert DivPrune(keep=keep).n_kept(576) == count


def test_counts_on_other_lengths():
    assert DivPrune(keep=1 / 9).n_kept(2340) == 260
    assert DivPrune(keep=600).n_kept(576) == 576
    assert DivPrune(keep=0.001).n_kept(10) == 1
    assert [DivPrune(keep=0.5).n_kept(n) for n in (5, 7)] == [2, 4]  # half to even


def test_zero_vectors_and_a_single_token():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert not select_diverse(vectors, 4, distinct=True).isnan().any()
    assert sorted(select_diverse(vectors, 4, distinct=True).tolist()) == [0, 1, 2, 3]
    assert select_diverse(vectors[1:2], 1).tolist() == [0]


def test_wrong_options_are_named_together():
    with pytest.raises(ConfigurationError, match=r"(?s)keep=0.*positions='middle'.*variant='exact'"):
        DivPrune(keep=0, positions="middle", variant="exact")
