"""ToMe's merging and schedules against the official code's, the card's example and a slow version."""

import pytest
import torch

from llava.reduction.blockmerge import exact_schedule, limited
from llava.reduction.tome import match_and_merge, parse_schedule
from tests.reduction import recorded
from tests.reduction.slow_vision import tome


@pytest.mark.parametrize("name", [name for name in recorded.names("tome") if not name.startswith("sched")])
def test_recorded_merges(name, golden):
    hyper, arrays = recorded.load("tome", name)
    tokens, sizes = arrays["x"], None
    for step in ("1", "2"):
        tokens, sizes, _ = match_and_merge(
            arrays[f"metric{step}"], tokens, sizes, hyper[f"r{step}"], hyper["class_token"]
        )
        assert torch.equal(sizes, arrays[f"s{step}"])
        assert torch.allclose(tokens, arrays[f"x{step}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in recorded.names("tome") if name.startswith("sched")])
def test_recorded_schedules(name, golden):
    hyper, arrays = recorded.load("tome", name)
    r = tuple(hyper["r"]) if hyper["kind"] == "pair" else hyper["r"]
    assert parse_schedule(hyper["layers"], r) == arrays["schedule"].tolist()


def directions(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)[None]


TOKENS = torch.tensor([100.0, 1, 2, 3, 4, 5, 6], dtype=torch.float64)[None, :, None]


def test_example_of_two_layers():
    tokens, sizes, group = match_and_merge(directions(0, 10, 12, 80, 30, 85, 50), TOKENS, None, 2)
    assert torch.allclose(tokens[0, :, 0], torch.tensor([100, 6, 7 / 3, 3, 5], dtype=torch.float64))
    assert sizes[0, :, 0].tolist() == [1, 1, 3, 1, 1]
    assert group.tolist() == [[0, 2, 2, 3, 2, 4, 1]]
    tokens, sizes, _ = match_and_merge(directions(0, 20, 80, 33, 70), tokens, sizes, 1)
    assert torch.allclose(tokens[0, :, 0], torch.tensor([100, 7 / 3, 6, 4], dtype=torch.float64))
    assert sizes[0, :, 0].tolist() == [1, 3, 1, 2]


def test_example_without_class_token():
    tokens, sizes, _ = match_and_merge(directions(0, 10, 12, 80, 30, 85, 50), TOKENS, None, 2, class_token=False)
    assert torch.allclose(tokens[0, :, 0], torch.tensor([4, 6, 103 / 3, 3, 5], dtype=torch.float64))
    assert sizes[0, :, 0].tolist() == [1, 1, 3, 1, 1]


@pytest.mark.parametrize("keep, most, least, n_most", [(192, 17, 16, 16), (128, 20, 19, 11), (64, 23, 22, 6)])
def test_exact_schedules_of_the_card(keep, most, least, n_most):
    assert exact_schedule(23, 577, 576 - keep) == [most] * n_most + [least] * (23 - n_most)


@pytest.mark.parametrize("r, left", [(16, 208), (17, 185), (19, 139), (20, 116), (22, 70), (23, 47)])
def test_constant_schedules_of_the_card(r, left):
    assert 576 - sum(limited(parse_schedule(23, r), 577)) == left


@pytest.mark.parametrize("layers, remove", [(5, 512), (5, 555), (2, 430), (1, 288)])
def test_schedules_near_the_limit_still_reach_the_count(layers, remove):
    schedule = exact_schedule(layers, 577, remove)
    assert sum(schedule) == remove and limited(schedule, 577) == schedule


def test_more_than_halving_everywhere_is_impossible():
    assert exact_schedule(1, 577, 289) is None
    assert exact_schedule(3, 9, 0) == [0, 0, 0]


def test_nothing_to_merge_changes_nothing():
    tokens, sizes, group = match_and_merge(directions(0, 10, 12, 80, 30, 85, 50), TOKENS, None, 0)
    assert tokens is TOKENS and sizes is None and group is None


@pytest.mark.parametrize("r", [3, 9, 100])
def test_equals_slow_version(r):
    generator = torch.Generator().manual_seed(r)
    metric, tokens = torch.randn(2, 30, 4, generator=generator), torch.randn(2, 30, 3, generator=generator)
    sizes = torch.randint(1, 5, (2, 30, 1), generator=generator).float()
    fast, masses, group = match_and_merge(metric, tokens, sizes, r)
    for row in range(2):
        slow, mass = tome(metric[row], tokens[row], sizes[row, :, 0], r)
        assert torch.allclose(fast[row], slow, atol=1e-5) and masses[row, :, 0].tolist() == mass
        assert torch.equal(torch.bincount(group[row]) > 0, torch.ones(fast.shape[1], dtype=torch.bool))
