"""The tensor re-enactment of CPython's set against CPython's set."""

import random
import sys

import pytest
import torch

from llava.reduction.setorder import cpython_set_order

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="the order is that of CPython's sets")


def ordered(lists):
    values = torch.tensor(lists)
    return values.gather(1, cpython_set_order(values)).tolist()


def test_recorded_example():
    assert ordered([[35, 610, 40, 100, 612, 640, 700, 620]]) == [[640, 610, 35, 612, 100, 40, 620, 700]]


@pytest.mark.parametrize("count", [*range(1, 41), 77, 120])
def test_random_lists(count):
    pick = random.Random(count)
    for bound in (2 * count + 4, 700, 3000, 2**20, 2**32):
        lists = [pick.sample(range(max(bound, count)), count) for _ in range(24)]
        assert ordered(lists) == [list(set(row)) for row in lists]


@pytest.mark.parametrize("step", [8, 32, 64, 128, 1024])
def test_colliding_lists(step):
    """All values fall into few slots, so that probing, jumping and the table's end matter."""
    pick = random.Random(step)
    for count in (3, 4, 5, 8, 18, 19, 30):
        lists = [
            [step * number + pick.choice((0, 1, step - 1)) for number in pick.sample(range(200), count)]
            for _ in range(40)
        ]
        assert ordered(lists) == [list(set(row)) for row in lists]


def test_empty():
    assert cpython_set_order(torch.empty(3, 0, dtype=torch.long)).shape == (3, 0)
