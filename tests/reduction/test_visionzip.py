"""VisionZip's tokens against the official code's, the card's example and a slow version."""

import pytest
import torch

from llava.reduction.visionzip import condense, dominant_tokens, pack_crops
from tests.reduction import recorded
from tests.reduction.slow_vision import visionzip


@pytest.mark.parametrize("name", [name for name in recorded.names("visionzip") if "pack" not in name])
def test_recorded_tokens(name, golden):
    hyper, arrays = recorded.load("visionzip", name)
    dominant = dominant_tokens(arrays["cls_rows"][..., 1:], hyper["dominant"])
    assert torch.equal(dominant, arrays["dominant"])
    out, _ = condense(arrays["h"], arrays["metric"], dominant, hyper["contextual"])
    assert torch.allclose(out, arrays["out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in recorded.names("visionzip") if "pack" in name])
def test_recorded_order_of_crops(name, golden):
    hyper, arrays = recorded.load("visionzip", name)
    crops = arrays["crop_out"]
    lengths = [crops.shape[1]] * len(crops)
    order = pack_crops(lengths, arrays["keep"].long(), (hyper["nh"], hyper["nw"]), (24, 24))
    assert torch.equal(crops.flatten(0, 1)[order], arrays["packed"])


def directions(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)[None]


HIDDEN = torch.tensor([50.0, 1, 2, 3, 4, 5, 6, 7, 8])[None, :, None]
METRIC = directions(0, 0, 90, 10, 45, 80, 20, 60, 30)
ATTENTION = torch.tensor([0.05, 0.30, 0.02, 0.10, 0.04, 0.20, 0.03, 0.06])[None, None]


def test_example_of_eight_patches():
    dominant = dominant_tokens(ATTENTION, 3)
    assert dominant.tolist() == [[0, 2, 6]]
    out, positions = condense(HIDDEN, METRIC, dominant, 2)
    assert torch.allclose(out[0, :, 0], torch.tensor([50, 2, 6, 6.5, 10.5]))
    assert positions.tolist() == [[0, 2, 6, 1, 5]]


@pytest.mark.parametrize("dominant, contextual, expected", [(9, 3, 9), (8, 3, 9), (7, 3, 9), (3, 0, 3)])
def test_fewer_left_than_asked_gives_what_is_left(dominant, contextual, expected):
    out, _ = condense(HIDDEN, METRIC, dominant_tokens(ATTENTION, dominant), contextual)
    assert out.shape == (1, expected, 1)


@pytest.mark.parametrize("contextual", [1, 4, 7])
def test_equals_slow_version(contextual):
    generator = torch.Generator().manual_seed(contextual)
    hidden, metric = torch.randn(2, 41, 6, generator=generator), torch.randn(2, 41, 3, generator=generator)
    dominant = dominant_tokens(torch.rand(2, 3, 40, generator=generator), 12)
    out, _ = condense(hidden, metric, dominant, contextual)
    for tile in range(2):
        slow = visionzip(hidden[tile], metric[tile], set(dominant[tile].tolist()), contextual)
        assert torch.allclose(out[tile], slow, atol=1e-5)
