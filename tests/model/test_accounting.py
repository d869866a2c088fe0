"""FLOPs against the paper's percentages and a count of real products; reports against numbers worked out by hand."""

import gc
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from llava.model.accounting import DecoderSize, cache_bytes, flops_exact, flops_paper
from llava.reduction import DART, NoReduction
from tests import tiny
from tests.tiny import N_LAYERS

VICUNA = DecoderSize(width=4096, heads=32, kv_heads=32, head=128, ffn=11008, layers=32)


class TestFlops:
    @pytest.mark.parametrize(
        "before, after, layer, percent",
        [(576, 192, 2, 36.89), (576, 128, 2, 26.61), (576, 64, 2, 16.40), (2880, 320, 2, 15.46), (2880, 320, 3, 18.28)],
    )
    def test_percentages_of_the_papers_formula(self, before, after, layer, percent):
        lengths = [before] * layer + [after] * (32 - layer)
        share = flops_paper(lengths, VICUNA) / flops_paper([before] * 32, VICUNA)
        assert round(100 * share, 2) == percent

    def test_exact_equals_what_torch_counts(self):
        """Eager attention multiplies full squares; the half above the diagonal is taken out of torch's count."""
        model = tiny.build("llava", "eager")
        decoder, n = model.model.language_model, 21
        size = DecoderSize.of(decoder.config)
        with FlopCounterMode(display=False) as counter:
            decoder(inputs_embeds=torch.zeros(1, n, 64), use_cache=False)
        above_the_diagonal = N_LAYERS * 2 * 2 * (n * n - n * (n + 1) // 2) * size.heads * size.head
        expected = counter.get_total_flops() - above_the_diagonal
        assert flops_exact([n] * N_LAYERS, size) == pytest.approx(expected, rel=1e-4)  # some versions count the rotary

    def test_grouped_heads_are_read_off_the_configuration(self):
        assert DecoderSize.of(tiny.build().model.language_model.config) == DecoderSize(64, 4, 2, 16, 96, N_LAYERS)


class TestReport:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return tiny.build()

    @pytest.fixture
    def method(self):
        return DART(keep=6, pivots_visual=2, pivots_text=2)

    def test_numbers_by_hand(self, model, method):
        batch = tiny.inputs()
        cache = DynamicCache(config=model.config.get_text_config())
        with method(model) as pruning:
            model(**batch, past_key_values=cache)
        report, size = pruning.last, DecoderSize.of(model.model.language_model.config)
        kept = 2 + 4 * (6 // 4)
        assert report.prompt == [28, 61, 9]
        assert report.visual == [16, 48, 0]
        assert report.asked == [6, 18, 0]
        assert report.kept == [[kept, 3 * kept, 0]]
        assert report.mean_over_layers == [(2 * 16 + 4 * kept) / 6, (2 * 48 + 12 * kept) / 6, 0]
        assert report.flops_paper[0] == flops_paper([28] * 2 + [12 + kept] * 4, size)
        assert report.flops_exact_unpruned[1] == flops_exact([61] * 6, size)
        widest = 13 + 3 * kept  # text and kept tokens of the longest sample; the others are filled up to it
        per_column = 2 * 3 * 2 * 16 * 4  # keys and values, three samples, two heads of 16 channels, float32
        assert report.cache_bytes == per_column * (2 * 61 + 4 * widest)
        assert report.cache_bytes_unpruned == per_column * 6 * 61
        assert report.selection_seconds > 0

    def test_cache_can_be_read_again_while_it_lives(self, model, method):
        single = tiny.alone(tiny.inputs())[0]
        cache = DynamicCache(config=model.config.get_text_config())
        with method(model) as pruning:
            tiny.generate(model, single, 5, past_key_values=cache)
        assert pruning.last.live_cache_bytes() == cache_bytes(cache) > pruning.last.cache_bytes
        del cache
        gc.collect()
        assert pruning.last.live_cache_bytes() is None

    def test_without_a_cache(self, model, method):
        with method(model) as pruning:
            model(**tiny.inputs(), use_cache=False)
        assert pruning.last.cache_bytes is None and pruning.last.live_cache_bytes() is None
        assert "no cache" in pruning.last.line()

    def test_static_caches_count_what_they_allocate(self, model, method):
        single = tiny.alone(tiny.inputs())[0]
        with method(model) as pruning:
            model(**single, past_key_values=tiny.static_cache(model, [40, 40, 30, 30, 30, 30]))
        per_column = 2 * 2 * 16 * 4
        assert pruning.last.cache_bytes == per_column * (80 + 120)
        assert pruning.last.cache_bytes_unpruned == per_column * 240

    def test_words_and_json(self, model, method):
        with method(model) as pruning:
            model(**tiny.alone(tiny.inputs())[0])
            line = pruning.last.line()
            assert "dart: visual tokens 16 -> 6 after layer 2 (asked 6, mean over layers 9.3)" in line
            assert "by the paper's formula" in line and "selection" in line
            model(**tiny.alone(tiny.inputs())[2])
            assert pruning.last.line() == "dart: no image in the prompt, 9 tokens"
        assert json.loads(json.dumps(pruning.last.to_dict()))["visual"] == [0]
        assert "indices" not in pruning.last.to_dict()

    def test_means_cover_the_whole_run(self, model, method, monkeypatch):
        monkeypatch.setattr("llava.model.pruning.REPORTS_KEPT", 3)
        singles = tiny.alone(tiny.inputs())
        with method(model) as pruning:
            for number in range(6):
                model(**singles[number % 2])
        assert len(pruning.reports) == 3
        summary = pruning.summary()
        assert (summary["method"], summary["prefills"], summary["samples"]) == ("dart", 6, 6)
        assert summary["visual"] == (16 + 48) / 2
        assert summary["final"] == (6 + 18) / 2
        assert summary["cache_bytes"] < summary["cache_bytes_unpruned"]

    def test_before_anything_ran(self, model):
        with NoReduction()(model) as pruning:
            assert pruning.last is None and pruning.reports == []
            assert pruning.summary() == {"method": "none", "prefills": 0, "samples": 0}
