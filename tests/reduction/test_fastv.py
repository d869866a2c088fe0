"""FastV against recorded choices of the official code, the card's cases, and a slow version in plain Python."""

import json
import random

import numpy
import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction import FastV, registry
from llava.reduction.fastv import top_tokens
from tests.conftest import SHARED
from tests.reduction.problems import problems, rows_state

RECORDED = SHARED / "golden" / "fastv.json"
CASES = json.loads(RECORDED.read_text()) if RECORDED.is_file() else []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_recorded_choices(case, golden):
    arrays, hyper = numpy.load(golden / "fastv.npz"), case["hyper"]
    row, keep = (torch.from_numpy(arrays[f"{case['name']}/{name}"]) for name in ("attn_last", "keep"))
    start, length, total = hyper["start"], hyper["L"], hyper["N"]
    method = FastV(keep=1 - hyper["R"], layer=hyper["K"])
    assert method.n_kept(length) == hyper["n_keep"]
    groups, _ = problems([(start, length, total - start - length), (1, 4, 2)])
    rows = torch.zeros(2, hyper["heads"], 1, length)
    rows[0, :, 0] = row[:, start : start + length]
    kept = method.select(rows_state(groups, rows))
    expected = [index - start for index in keep.tolist() if start <= index < start + length]
    assert kept[0].nonzero().squeeze(1).tolist() == expected
    assert method.plan(groups)[0] == len(expected)
    assert torch.equal(keep, torch.from_numpy(arrays[f"{case['name']}/positions"]))  # original positions


class TestByHand:
    HEADS = torch.tensor(
        [[0.05, 0.05, 0.10, 0.30, 0.02, 0.08, 0.10, 0.20, 0.10], [0.05, 0.05, 0.20, 0.02, 0.08, 0.30, 0.10, 0.10, 0.10]]
    )

    @pytest.mark.parametrize("removed, expected", [(0.6, [3, 5]), (0.5, [3, 5]), (0.4, [2, 3, 5])])
    def test_two_heads(self, removed, expected):
        groups, _ = problems([(2, 5, 2)])
        kept = FastV(keep=1 - removed).select(rows_state(groups, self.HEADS[None, :, None, 2:7]))
        assert (groups.columns[kept]).tolist() == expected

    @pytest.mark.parametrize(
        "length, rounding, counts",
        [
            (576, "round", (192, 128, 64)),
            (576, "int", (191, 127, 63)),
            (2880, "round", (959, 639, 320)),
            (2880, "int", (959, 639, 319)),
        ],
    )
    def test_counts_of_fractions(self, length, rounding, counts):
        removed = (0.667, 0.778, 0.889)
        assert tuple(FastV(keep=1 - r, rounding=rounding).n_kept(length) for r in removed) == counts

    def test_presets_are_counts(self):
        assert [FastV.preset(name).n_kept(576) for name in ("192", "128", "64")] == [192, 128, 64]
        assert FastV.preset("320").n_kept(2880) == 320
        with pytest.raises(ConfigurationError, match="no preset '7'. It has: 192, 128, 64, 320"):
            FastV.preset("7")

    def test_ties_go_to_the_lower_index(self):
        kept = top_tokens(torch.tensor([[1.0, 2, 2, 2, 0]]), torch.ones(1, 5, dtype=torch.bool), torch.tensor([2]))
        assert kept.tolist() == [[False, True, True, False, False]]


def test_slow_version():
    """Ragged problems in one batch, each against sorting in plain Python."""
    pick = random.Random(5)
    for _ in range(10):
        spans = [(pick.randrange(4), pick.randrange(1, 20), pick.randrange(1, 5)) for _ in range(3)]
        groups, _ = problems(spans)
        rows = torch.rand(3, 2, 1, groups.columns.shape[1])
        method = FastV(keep=pick.choice([3, 0.4]))
        kept = method.select(rows_state(groups, rows))
        for row, (_, visual, _) in enumerate(spans):
            scores = [sum(float(rows[row, head, 0, token]) for head in range(2)) for token in range(visual)]
            wanted = min(visual, 3 if method.keep == 3 else round(visual * 0.4))
            expected = sorted(sorted(range(visual), key=lambda token: (-scores[token], token))[:wanted])
            assert kept[row].nonzero().squeeze(1).tolist() == expected


class TestMeanBudget:
    @pytest.mark.parametrize("target, rank", [(192, 166), (128, 98), (64, 30)])
    def test_ranks_of_the_card(self, target, rank):
        """With K = 2 and 32 layers the card gives the ranks that make these means."""
        assert FastV(keep=target, budget="mean").fitted(32).n_kept(576) == rank

    def test_out_of_reach(self):
        with pytest.raises(ConfigurationError, match="mean of 30 .* first 2 of 32 layers .* Give keep >= 36"):
            FastV(keep=30, budget="mean").fitted(32).n_kept(576)
        with pytest.raises(ConfigurationError, match="how many layers"):
            FastV(keep=30, budget="mean").n_kept(576)


def test_registered():
    assert registry.create("fastv", keep=64) == FastV(keep=64)
