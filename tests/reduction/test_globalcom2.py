"""GlobalCom2's choice and order against the official code's, the card's examples and a slow version."""

import math

import pytest
import torch

from llava.reduction.globalcom2 import crop_ratios, crop_scores, deliver_crops, select_tokens
from llava.reduction.tiles import image_mask, unpadded
from tests.reduction import recorded


def rows_of(order, features, newline):
    """Delivered vectors: rows of the crops' features, or the newline where the order says -1."""
    flat = features.flatten(0, 1)
    return torch.where((order < 0)[:, None], newline, flat[order.clamp_min(0)])


@pytest.mark.parametrize("name", recorded.names("globalcom2"))
def test_recorded_tokens(name, golden):
    hyper, arrays = recorded.load("globalcom2", name)
    grid, side = (hyper["nh"], hyper["nw"]), (hyper["side"], hyper["side"])
    size = tuple(reversed(hyper["original_size_wh"]))
    ratios = crop_ratios(arrays["g"][0], grid, side, hyper["R"], hyper["tau"])
    assert torch.allclose(ratios.float(), arrays["scales"].float(), rtol=1e-5, atol=0)
    choice = select_tokens(arrays["g"], size, grid, side, ratio=hyper["R"], tau=hyper["tau"])
    assert torch.equal(choice.thumbnail, arrays["thumb"])
    assert choice.quota.tolist() == arrays["quota"].tolist()
    shown = image_mask(size, grid, side)
    for crop, kept in enumerate(choice.crops):
        number = (shown[crop].cumsum(0) - 1)[kept]
        assert sorted(number.tolist()) == sorted(arrays[f"crop_kept.{crop}"].tolist())
    assert torch.equal(arrays["f"][0][choice.thumbnail], arrays["out_thumb"])
    order = deliver_crops(choice.crops, size, grid, side)
    assert torch.equal(rows_of(order, arrays["f"][1:], arrays["newline"]), arrays["out_crops"])


LOGITS = torch.tensor([[4.0, 1, 8, -1], [1, 2, 3, 4], [4, 1, 2, 3]])
FEATURES = torch.tensor([[10.0, 11, 12, 13], [20, 21, 22, 23]])[..., None]


@pytest.mark.parametrize(
    "size, quota, expected",
    [((2, 4), [2, 1], [20, -1, 12, 13, -1]), ((2, 2), [1, 0], [13, -1, -1])],
)
def test_example_of_two_crops(size, quota, expected):
    ratios = crop_ratios(LOGITS[0], (1, 2), (2, 2), 0.5)
    assert torch.allclose(ratios, torch.tensor([0.634262, 0.365738], dtype=torch.float64), atol=1e-6)
    choice = select_tokens(LOGITS, size, (1, 2), (2, 2), ratio=0.5)
    assert choice.thumbnail.tolist() == [2, 0] and choice.quota.tolist() == quota
    order = deliver_crops(choice.crops, size, (1, 2), (2, 2))
    assert rows_of(order, FEATURES, torch.tensor([-1.0])).flatten().tolist() == expected


def test_every_row_of_the_canvas_ends_and_rows_shift_up_into_the_padding():
    kept = image_mask((1, 4), (1, 2), (4, 4))
    assert kept.view(2, 4, 4).all(-1).tolist() == [[False, True, True, False]] * 2
    order = deliver_crops(kept, (1, 4), (1, 2), (4, 4))
    assert order.tolist() == [4, 5, 6, 7, 20, 21, 22, 23, -1, 8, 9, 10, 11, 24, 25, 26, 27, -1, -1, -1]


def test_an_image_thinner_than_a_token_has_none():
    choice = select_tokens(torch.randn(3, 16), (1, 100), (1, 2), (4, 4), ratio=0.5)
    assert choice.quota.tolist() == [0, 0] and not choice.crops.any()


@pytest.mark.parametrize("total", [10, 60, 200])
def test_exact_total(total):
    logits = torch.randn(5, 144, generator=torch.Generator().manual_seed(0))
    choice = select_tokens(logits, (480, 640), (2, 2), (12, 12), ratio=total / 720, total=total)
    assert len(choice.thumbnail) + int(choice.crops.sum()) == total
    assert not (choice.crops & ~image_mask((480, 640), (2, 2), (12, 12))).any()


def slow_ratios(thumbnail, grid, side, ratio, tau):
    def block(index, length, parts):
        return min(index // (length // parts), parts - 1)

    sums = [0.0] * (grid[0] * grid[1])
    for row in range(side[0]):
        for column in range(side[1]):
            crop = block(row, side[0], grid[0]) * grid[1] + block(column, side[1], grid[1])
            sums[crop] += float(thumbnail[row * side[1] + column])
    powers = [math.exp((s - max(sums)) / tau) for s in sums]
    sigma = [p / (sum(powers) + 1e-8) for p in powers]
    return [min(1.0, ratio * (1 + s - sum(sigma) / len(sigma))) for s in sigma]


@pytest.mark.parametrize("grid", [(2, 2), (1, 3), (3, 1), (2, 3)])
@pytest.mark.parametrize("size", [(30, 50), (50, 30), (40, 40)])
def test_equals_slow_version(grid, size):
    side = (10, 10)
    logits = 3 * torch.randn(1 + grid[0] * grid[1], 100, generator=torch.Generator().manual_seed(sum(size)))
    ratios = slow_ratios(logits[0], grid, side, 0.3, 10.0)
    choice = select_tokens(logits, size, grid, side, ratio=0.3)
    top, bottom, left, right = unpadded(size, (grid[0] * 10, grid[1] * 10))
    overview = torch.nn.functional.interpolate(
        logits[0].view(1, 1, 10, 10), (bottom - top, right - left), mode="bilinear", align_corners=False
    )[0, 0]
    for crop in range(len(ratios)):
        own, seen, tokens = [], [], []
        for token in range(100):
            row, column = crop // grid[1] * 10 + token // 10, crop % grid[1] * 10 + token % 10
            if top <= row < bottom and left <= column < right:
                tokens.append(token)
                own.append(float(logits[1 + crop, token]))
                seen.append(float(overview[row - top, column - left]))
        norms = [math.sqrt(sum(x * x for x in part)) for part in (own, seen)]
        scores = {t: a / norms[0] + b / norms[1] for t, a, b in zip(tokens, own, seen, strict=True)}
        best = sorted(tokens, key=lambda t: -scores[t])[: int(len(tokens) * ratios[crop])]
        assert choice.crops[crop].nonzero().flatten().tolist() == sorted(best)


def test_padding_scores_minus_infinity():
    scores = crop_scores(torch.ones(2, 4), torch.ones(4), (2, 2), (1, 2), (2, 2))
    assert torch.equal(scores.isinf(), torch.tensor([[True, False] * 2, [False, True] * 2]))
