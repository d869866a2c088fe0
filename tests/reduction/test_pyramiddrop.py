"""PyramidDrop against recorded events of the official code, the card's cases, budgets, and plain Python."""

import json

import numpy
import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction import PyramidDrop
from llava.reduction.attention import AttentionRows
from llava.reduction.base import LayerState
from llava.reduction.budgets import mean_over_layers
from tests.conftest import SHARED
from tests.reduction.problems import problems, rows_state

RECORDED = SHARED / "golden" / "pyramiddrop.json"
CASES = json.loads(RECORDED.read_text()) if RECORDED.is_file() else []


def rotated(vectors, positions, base):
    """Rotary embedding of (h, N, d) in pairs (j, j + d / 2), written with complex numbers."""
    half = vectors.shape[-1] // 2
    angles = positions[:, None].double() * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(*vectors.double().split(half, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1).float()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_recorded_events(case, golden):
    arrays, hyper = numpy.load(golden / "pyramiddrop.npz"), case["hyper"]
    x, norm, wq, wk, positions, keep, score, out = (
        torch.from_numpy(arrays[f"{case['name']}/{name}"])
        for name in ("x", "ln_w", "wq", "wk", "positions", "keep", "score", "out")
    )
    start, n_in, heads = hyper["image_start"], hyper["n_in"], hyper["heads"]
    method = PyramidDrop(layer_list=(8, 16, 24), image_token_ratio_list=tuple(hyper["ratio_list"][1:]))
    layer = method.layers[hyper["stage"]]
    groups, _ = problems([(start, n_in, hyper["n_text_after"])], layer=layer, n_prompt=[hyper["L"]])
    normed = x * (x.square().mean(-1, keepdim=True) + hyper["rms_norm_eps"]).rsqrt() * norm
    query, key = (
        rotated((normed @ weight.T).unflatten(-1, (heads, -1)).transpose(0, 1), positions, hyper["rope_base"])[None]
        for weight in (wq, wk)
    )
    columns, valid = method.queries(groups)
    visible = torch.ones(1, 1, len(x), dtype=torch.bool)
    rows = AttentionRows(query[:, :, -1:], key, visible, groups, hyper["head_dim"] ** -0.5, valid, columns)
    assert torch.allclose(rows.head_mean()[0, 0], score, rtol=1e-4, atol=1e-7)
    kept = method.select(LayerState(layer, x[None], groups, attention=rows))[0]
    assert kept.sum() == hyper["n_out"] == method.plan(groups)[0]
    visual = [index - start for index in keep.tolist() if start <= index < start + n_in]
    assert kept.nonzero().squeeze(1).tolist() == visual
    assert torch.equal(x[keep], out)


class TestByHand:
    def test_two_heads(self):
        logits = torch.tensor([[0.0, 2, 0, 1, 0, 0, 0, 0], [0, 0, 0, 3, 1, 0, 0, 0]])
        rows = logits.softmax(-1)[None, :, None, 1:5]
        assert torch.allclose(rows.mean(1)[0, 0], torch.tensor([0.2467, 0.0484, 0.4330, 0.0782]), atol=1e-4)
        groups, _ = problems([(1, 4, 3)], layer=8)
        kept = PyramidDrop().select(rows_state(groups, rows))
        assert groups.columns[kept].tolist() == [1, 3]

    @pytest.mark.parametrize(
        "length, counts",
        [(5, [2, 1, 0]), (7, [3, 1, 0]), (577, [288, 144, 72]), (2880, [1440, 720, 360]), (2928, [1464, 732, 366])],
    )
    def test_shares_are_truncated(self, length, counts):
        assert PyramidDrop().counts(length) == counts

    def test_published_average(self):
        assert mean_over_layers(576, PyramidDrop().layers, PyramidDrop().counts(576), 32) == 270

    @pytest.mark.parametrize("preset, counts", [("192", [312, 156, 78]), ("128", [184, 92, 46]), ("64", [56, 28, 14])])
    def test_presets_meet_their_means(self, preset, counts):
        method = PyramidDrop.preset(preset).fitted(32)
        assert method.layers == (2, 10, 20) and method.counts(576) == counts
        assert mean_over_layers(576, method.layers, counts, 32) == int(preset)


class TestBudgets:
    @pytest.mark.parametrize("target", [192, 128, 64, 100, 333, 576, 0.2])
    def test_mean(self, target):
        method = PyramidDrop(keep=target).fitted(32)
        counts = method.counts(576)
        wanted = target * 576 if isinstance(target, float) else target
        assert abs(mean_over_layers(576, method.layers, counts, 32) - wanted) <= 12 / 64 + 1e-9
        assert counts == sorted(counts, reverse=True)

    def test_exact(self):
        assert PyramidDrop(keep=64, budget="exact").counts(576) == [256, 128, 64]
        assert PyramidDrop(keep=300, budget="exact").counts(576) == [576, 576, 300]

    def test_shallow_models_are_cut_at_the_same_depths(self):
        assert PyramidDrop().fitted(8).layers == (2, 4, 6)
        assert PyramidDrop().fitted(40).layers == (8, 16, 24)
        assert PyramidDrop(layer_list=(1, 2, 3)).fitted(8).layers == (1, 2, 3)

    def test_out_of_reach(self):
        with pytest.raises(ConfigurationError, match="mean of 100 .* first 8 of 32"):
            PyramidDrop(keep=100, layer_list=(8, 16, 24)).fitted(32).counts(576)

    def test_all_mistakes_at_once(self):
        with pytest.raises(ConfigurationError) as caught:
            PyramidDrop(layer_list=(8, 8), image_token_ratio_list=(0.25, 0.5, 0.1))
        assert len(caught.value.problems) == 3
