"""MustDrop's three stages against recorded runs of the official code, the card's example, and plain Python."""

import json
import types

import numpy
import pytest
import torch
from transformers.cache_utils import DynamicLayer

from llava.errors import ConfigurationError
from llava.model.cachecut import cut_cache
from llava.model.cuts import cut
from llava.model.layout import Layout
from llava.model.positions import compact_positions
from llava.model.stages import PromptState
from llava.reduction import MustDrop
from llava.reduction.base import Selection
from llava.reduction.budgets import mean_over_layers
from llava.reduction.mustdrop import KEY, dual_attention, key_tokens, merge_windows
from tests.conftest import SHARED
from tests.reduction.problems import problems, rows_state

RECORDED = SHARED / "golden" / "mustdrop.json"
CASES = json.loads(RECORDED.read_text()) if RECORDED.is_file() else []


def cases(stage):
    return pytest.mark.parametrize(
        "case", [case for case in CASES if case["hyper"]["stage"] in stage], ids=lambda case: case["name"]
    )


@pytest.fixture(scope="module")
def arrays(golden):
    return numpy.load(golden / "mustdrop.npz")


def read(arrays, case, name):
    return torch.from_numpy(arrays[f"{case['name']}/{name}"])


class TestVisionStage:
    @cases(("A1", "A1+A2"))
    def test_recorded_merges(self, case, arrays):
        hyper, hidden, merged = case["hyper"], read(arrays, case, "h1"), read(arrays, case, "merged")
        found, _ = merge_windows(hidden, (hyper["grid"],) * 2, hyper["window"][0], hyper["sim_thr"])
        assert found.shape[1] == hidden.shape[1] - 8 * int(read(arrays, case, "r"))
        assert torch.allclose(found, merged, atol=1e-5)

    @cases(("A1+A2",))
    def test_recorded_key_tokens(self, case, arrays):
        found = key_tokens(read(arrays, case, "cls_rows"), case["hyper"]["key_rate"])
        assert found.tolist() == read(arrays, case, "key").tolist()

    def test_windows_by_hand(self):
        """The card's three windows of three tokens in a row, here as the top rows of three windows of 3 x 3."""
        text = "1 0 .96 .28 .8 .6 1 0 0 1 1 0 0 2 0 1 .6 3.2"
        tokens = torch.tensor([float(number) for number in text.split()]).view(9, 2)
        with_cls = torch.cat([torch.tensor([[9.0, 9]]), tokens])[None]
        assert torch.equal(merge_windows(with_cls, (3, 3), 3, 0.8)[0], with_cls)
        merged, sources = merge_windows(with_cls, (3, 3), 3, 0.5)
        assert torch.allclose(merged[0], torch.tensor([[9.0, 9], [0.595556, 0.897778]]), atol=1e-5)
        assert sources.tolist() == [[4]]

    def test_merged_windows_come_first_and_best_first(self):
        torch.manual_seed(0)
        hidden = torch.randn(1, 1 + 16, 5)
        patches = hidden[:, 1:].view(1, 4, 4, 5)
        patches[:, 2:, :2] = torch.randn(5)  # window 2: all alike
        patches[:, :2, 2:] = torch.randn(5) + 0.01 * torch.randn(1, 2, 2, 5)  # window 1: nearly
        merged, sources = merge_windows(hidden, (4, 4), 2, 0.9)
        assert merged.shape[1] == 1 + 2 + 8
        assert torch.allclose(merged[0, 1], patches[0, 2, 0], atol=1e-6)
        assert torch.allclose(merged[0, 2], patches[0, :2, 2:].mean((0, 1)), atol=1e-6)
        left = [0, 1, 4, 5, 10, 11, 14, 15]
        assert torch.equal(merged[0, 3:], hidden[0, 1:][left])
        assert sources.tolist() == [[12, 6, *left]]


@cases(("B+C",))
def test_recorded_cuts_positions_and_cache(case, arrays):
    """All four cuts and the cut of the cache, through the surgery's own bookkeeping."""
    hyper = case["hyper"]
    start, n_visual, n_text = hyper["visual_start"], hyper["n_visual"], hyper["n_text_after"]
    total = start + n_visual + n_text
    ids = torch.zeros(1, total, dtype=torch.long)
    ids[:, start : start + n_visual] = 7
    layout = Layout.read(ids, None, (7,), None)
    state = PromptState(layout, layout.counts(False))
    positions = torch.arange(total)[None]
    method = MustDrop(global_thr=hyper["global_thr"], individual_thr=hyper["individual_thr"]).fitted(hyper["n_layers"])
    key = torch.zeros(1, total)
    key[0, start + read(arrays, case, "key_in")] = 1
    hidden, lengths = torch.arange(total).float()[None, :, None], []
    for layer in range(hyper["n_layers"]):
        if layer in method.layers:
            groups = layout.groups(False, *state.columns(state.newest), state.n_visual, layer)
            handed = key if state.newest is None else key.gather(1, state.newest.source)
            rows = read(arrays, case, f"attn.{layer - 1}")[None]
            kept = method.select(rows_state(groups, rows, hidden, handed={KEY: groups.visual(handed)}))
            hidden = cut(state, layer, hidden, Selection(kept), groups, None, False, positions)
            alive = state.newest.index[0]
            assert (alive[(alive >= start) & (alive < start + n_visual)] - start).tolist() == (
                read(arrays, case, f"kept.{layer - 1}").tolist()
            )
            expected = read(arrays, case, f"positions.{layer - 1}")
            assert torch.equal(compact_positions(state.newest, layout, positions)[0], expected)
        lengths.append(hidden.clone())
    cache = types.SimpleNamespace(layers=[])
    for tokens in lengths:
        entry = DynamicLayer()
        entry.update(tokens[:, None].clone(), tokens[:, None].clone())
        cache.layers.append(entry)
    cut_cache(method, state, cache, False, positions)
    assert [entry.keys.shape[2] for entry in cache.layers] == read(arrays, case, "cache_len").tolist()
    for layer in (0, 2, 3, 7, 11, 15):
        assert torch.equal(cache.layers[layer].keys[0, 0, :, 0].long(), read(arrays, case, f"cache_tokens.{layer}"))
    n_last = state.counts(state.n_visual, False)[0]
    assert total - int(state.at(2).shift) == n_last and state.at(1) is None  # positions of the first new token


class TestByHand:
    FIRST = torch.tensor([[0.02, 0.10, 0.01, 0.03, 0.01, 0.06], [0.01, 0.08, 0.02, 0.05, 0.01, 0.01]])
    SECOND = torch.tensor([[0.01, 0.01, 0.03, 0.01, 0.09], [0.01, 0.02, 0.02, 0.01, 0.01]])

    def test_two_cuts(self):
        def cut_once(rows, key, individual):
            marks = torch.zeros(1, rows.shape[1], dtype=torch.bool)
            marks[0, key] = True
            kept = dual_attention(rows[None], marks, torch.ones_like(marks), 0.15, individual)
            return kept[0].nonzero().squeeze(1).tolist()

        assert cut_once(self.FIRST, [2, 4], 0.055) == [1, 2, 3, 4, 5]
        assert cut_once(self.SECOND, [1, 3], 0.05) == [1, 2, 3, 4]

    def test_the_released_defaults_drop_nothing(self):
        rows = torch.rand(2, 3, 9)
        valid = torch.ones(2, 9, dtype=torch.bool)
        assert dual_attention(rows, ~valid, valid, 1.0, 0.0).all()
        assert dual_attention(rows[:, :0], ~valid, valid, 0.5, 0.5).all()  # no text: nothing is known against a token

    def test_slow_version(self):
        torch.manual_seed(3)
        spans = [(1, 12, 3), (2, 7, 2), (0, 9, 3)]
        groups, _ = problems(spans, layer=3)
        rows = torch.rand(3, 2, 3, 12) * 0.02
        key = torch.rand(3, 12) < 0.2
        kept = MustDrop(global_thr=0.1, individual_thr=0.013).select(rows_state(groups, rows, handed={KEY: key}))
        for row, (_, n_visual, n_text) in enumerate(spans):
            mean = rows[row].mean(0)[:n_text, :n_visual].tolist()
            total = [sum(line[token] for line in mean) for token in range(n_visual)]
            expected = [
                token
                for token in range(n_visual)
                if key[row, token] or total[token] >= 0.1 * sum(total) or max(m[token] for m in mean) >= 0.013
            ]
            assert kept[row].nonzero().squeeze(1).tolist() == expected


class TestBudgets:
    @pytest.mark.parametrize("keep", [192, 128, 64, 0.3])
    def test_mean(self, keep):
        method = MustDrop(keep=keep).fitted(32)
        wanted = keep * 576 if isinstance(keep, float) else keep
        counts = method.counts(576)
        assert abs(mean_over_layers(576, method.layers, counts, 32) - wanted) <= 17 / 64 + 1e-9

    def test_exact_keeps_key_tokens_longest(self):
        groups, _ = problems([(1, 6, 2)], layer=3)
        key = torch.tensor([[True, False, False, False, False, True]])
        rows = torch.tensor([0.01, 0.5, 0.4, 0.3, 0.2, 0.02]).expand(1, 2, 2, 6)
        method = MustDrop(keep=4, budget="exact")
        assert method.plan(groups) == [4]
        kept = method.select(rows_state(groups, rows, handed={KEY: key}))
        assert kept[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 5]

    def test_presets_are_the_published_thresholds(self):
        assert MustDrop.preset("64") == MustDrop(global_thr=0.011, individual_thr=0.01)
        assert MustDrop.preset("128").n_kept(576) is None

    def test_mistakes(self):
        with pytest.raises(ConfigurationError, match="ascending layers"):
            MustDrop(prune_layers=(6, 2))
