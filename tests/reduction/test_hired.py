"""HiRED's masks against the official code's, the card's examples and a slow version."""

import random

import pytest
import torch

from llava.reduction.hired import count_votes, select_tokens
from tests.reduction import recorded


@pytest.mark.parametrize("name", recorded.names("hired", variant="LLaVA-1.5"))
def test_recorded_single_tile(name, golden):
    hyper, arrays = recorded.load("hired", name)
    total = int(hyper["n_visual"] * hyper["token_budget_rate"])
    mask = select_tokens(arrays["cls_rows"][None, :, 1:], total=total)
    assert torch.equal(mask[0].long(), arrays["mask"].long())


@pytest.mark.parametrize("name", recorded.names("hired", variant="LLaVA-NeXT"))
def test_recorded_tiles(name, golden):
    hyper, arrays = recorded.load("hired", name)
    total = int(hyper["tiles"] * hyper["n_visual_per_tile"] * hyper["token_budget_rate"])
    late, early = arrays["cls22"][..., 1:], arrays["cls0"][0, :, 1:]
    grid = (hyper["nh"], hyper["nw"])
    mask = select_tokens(late, early, total=total, grid=grid, alpha=hyper["alpha"])
    assert torch.equal(mask.long(), arrays["mask"].long())
    assert mask.sum(1).tolist() == arrays["kept_per_tile"].tolist()


def test_example_of_two_heads():
    rows = torch.tensor([[0.05, 0.30, 0.10, 0.20, 0.15, 0.20], [0.10, 0.11, 0.27, 0.05, 0.27, 0.20]])
    assert select_tokens(rows[None], total=3)[0].nonzero().flatten().tolist() == [1, 4, 5]


LATE = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])[:, None]
EARLY = torch.tensor([[0.4, 0.3, 0.1, 0.2]])


def kept(mask):
    return [row.nonzero().flatten().tolist() for row in mask]


def test_example_of_two_crops_counts_raster_bands():
    mask = select_tokens(LATE, EARLY, total=6, grid=(1, 2))
    assert kept(mask) == [[0, 2, 3], [1, 2, 3], []]


def test_spatial_allocation_counts_the_region_of_each_crop():
    assert count_votes(EARLY[0], (1, 2), 2).tolist() == [2, 0]
    assert count_votes(EARLY[0], (1, 2), 2, "spatial", (2, 2)).tolist() == [1, 1]
    mask = select_tokens(LATE, EARLY, total=6, grid=(1, 2), side=(2, 2), allocation="spatial")
    assert [len(row) for row in kept(mask)] == [3, 1, 1]


def test_truncated_quotas_lose_a_token_and_exact_ones_do_not():
    early = torch.full((1, 9), 0.01)
    early[0, [0, 1, 3, 8]] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    late = torch.rand(4, 1, 9, generator=torch.Generator().manual_seed(0))
    assert count_votes(early[0], (1, 3), 4).tolist() == [2, 1, 1]
    assert select_tokens(late, early, total=10, grid=(1, 3)).sum(1).tolist() == [5, 2, 1, 1]
    assert select_tokens(late, early, total=10, grid=(1, 3), budget="exact").sum(1).tolist() == [5, 3, 1, 1]


def test_no_voters_share_equally():
    mask = select_tokens(LATE, EARLY, total=8, grid=(1, 2), alpha=1.0)
    assert mask.sum(1).tolist() == [4, 2, 2]


def test_exact_budget_stays_out_of_the_padding():
    shown = torch.tensor([[True, True, False, False], [True, True, False, False]])
    mask = select_tokens(LATE, EARLY, total=7, grid=(1, 2), budget="exact", shown=shown)
    assert mask.sum() == 7 and not (mask[1:] & ~shown).any()


def slow_hired(late, early, total, grid, alpha):
    n_crops, n = grid[0] * grid[1], late.shape[-1]

    def best(row, count):
        return set(sorted(range(n), key=lambda i: -float(row[i]))[:count])

    sums = late.sum(1)
    full = min(int(total * alpha), n)
    rest = min(total - full, n_crops * n)
    voters = best(early.sum(0), int(n * (1 - alpha)))
    votes = [sum(i in voters for i in range(c * (n // n_crops), (c + 1) * (n // n_crops))) for c in range(n_crops)]
    quotas = [min(int(torch.tensor(v / sum(votes)).float() * rest), n) for v in votes]
    return [sorted(best(row, quota)) for row, quota in zip(sums, [full, *quotas], strict=True)]


def test_equals_slow_version():
    pick = random.Random(1)
    for seed in range(12):
        grid = pick.choice([(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)])
        generator = torch.Generator().manual_seed(seed)
        late = torch.rand(1 + grid[0] * grid[1], 2, 36, generator=generator)
        early = torch.rand(2, 36, generator=generator)
        total, alpha = pick.randrange(4, 100), pick.choice([0.3, 0.5, 0.7])
        fast = select_tokens(late, early, total=total, grid=grid, alpha=alpha)
        assert kept(fast) == slow_hired(late, early, total, grid, alpha)
