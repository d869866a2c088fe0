"""A method before the language model followed by one inside it: what survives, and the accounting of both."""

import pytest
import torch

from llava.errors import ConfigurationError, UnsupportedModel
from llava.model.accounting import DecoderSize, flops_exact
from llava.model.calibrate import calibrate
from llava.reduction import DART, Chain, DivPrune, FastV, MustDrop, PruMerge, PyramidDrop, Random, SparseVLM, registry
from tests import tiny
from tests.tiny import N_LAYERS, N_PATCHES, error

TOLERANCE = 2e-5
SECOND = {
    "fastv": FastV(keep=4),
    "dart": DART(keep=4, pivots_visual=1, pivots_text=1, budget="exact"),
    "pyramiddrop": PyramidDrop(keep=4, budget="exact"),
    "sparsevlm": SparseVLM(keep=4, budget="exact"),
}


@pytest.fixture(scope="module")
def model():
    return tiny.build()


@pytest.fixture
def batch():
    return tiny.inputs()


@pytest.mark.parametrize("positions", ["renumbered", "original"])
@pytest.mark.parametrize("second", SECOND)
class TestChain:
    def test_batch_equals_one_by_one(self, second, positions, model, batch):
        with Chain(DivPrune(keep=10, positions=positions), SECOND[second])(model) as pruning:
            together = tiny.generate(model, batch)
            assert pruning.last.final == [4, 12, 0]
            kept = pruning.last.indices
            for row, single in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, single)
                assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], kept[row], strict=True))
                assert max(error(a[0], b[row]) for a, b in zip(apart.logits, together.logits, strict=True)) < TOLERANCE

    def test_survivors_are_those_of_the_first(self, second, positions, model, batch):
        first = DivPrune(keep=10, positions=positions)
        with first(model) as alone:
            model(**batch)
        with Chain(first, SECOND[second])(model) as pruning:
            model(**batch)
        for before, after in zip(alone.last.indices, pruning.last.indices, strict=True):
            assert all(set(b.tolist()) <= set(a.tolist()) for a, b in zip(before, after, strict=True))


def test_a_method_inside_the_vision_tower_comes_first(model, batch):
    chain = registry.create("tome+fastv", keep=4, **{"first.keep": 10})
    with chain(model) as pruning:
        together = tiny.generate(model, batch)
        assert pruning.last.kept == [[10, 30, 0], [4, 12, 0]] and pruning.last.cut_layers == [0, 2]
        for row, single in enumerate(tiny.alone(batch)):
            apart = tiny.generate(model, single)
            assert max(error(a[0], b[row]) for a, b in zip(apart.logits, together.logits, strict=True)) < TOLERANCE


def test_accounting(model, batch):
    with Chain(DivPrune(keep=10), FastV(keep=4, layer=2))(model) as pruning:
        model(**batch)
    report = pruning.last
    assert report.method == "divprune+fastv"
    assert report.cut_layers == [0, 2] and report.kept == [[10, 30, 0], [4, 12, 0]]
    assert report.visual == [16, 48, 0] and report.asked == [4, 12, 0]
    assert report.mean_over_layers == [(2 * 10 + 4 * 4) / 6, (2 * 30 + 4 * 12) / 6, 0]
    size = DecoderSize.of(model.model.language_model.config)
    assert report.flops_exact[0] == flops_exact([22, 22, 16, 16, 16, 16], size)
    assert report.flops_exact_unpruned[0] == flops_exact([28] * 6, size)


def test_a_mean_budget_holds_after_the_first_method(model, batch):
    chain = Chain(DivPrune(keep=12), Random(keep=6, count="mean", layer=1))
    with chain(model) as pruning:
        model(**batch)
    assert abs(pruning.last.mean_over_layers[0] - 6) <= 0.5
    with DART(keep=8, pivots_visual=2, pivots_text=2, budget="mean")(model) as pruning:
        model(**batch)
    assert abs(pruning.last.mean_over_layers[0] - 8) <= 0.5


class TestMustDropWithItsTower:
    METHOD = MustDrop(window=2, sim_thr=-1.0, key_rate=0.25, global_thr=0.2, individual_thr=0.2)

    def test_windows_are_merged_and_key_tokens_stay(self, model, batch):
        """A threshold of -1 merges all four windows, so that every image has 4 tokens, of which [CLS] elects one."""
        with self.METHOD(model) as pruning:
            model(**batch)
        report = pruning.last
        assert report.cut_layers[0] == 0 and report.kept[0] == [4, 12, 0]
        assert report.visual == [N_PATCHES, 3 * N_PATCHES, 0]
        assert all(final >= 1 for final in report.final[:2])

    def test_thresholds_that_nothing_reaches_leave_the_key_tokens(self, model, batch):
        method = MustDrop(window=2, sim_thr=-1.0, key_rate=0.25, global_thr=9.0, individual_thr=2.0)
        with method(model) as pruning:
            model(**batch)
        assert pruning.last.final == [1, 3, 0]
        exact = MustDrop(keep=2, budget="exact", window=2, sim_thr=2.0, key_rate=0.05)
        with exact(model) as pruning:
            model(**batch)
        assert pruning.last.final == [2, 6, 0]

    def test_batch_equals_one_by_one(self, model, batch):
        with self.METHOD(model) as pruning:
            together = tiny.generate(model, batch)
            final = pruning.last.final
            for row, single in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, single)
                assert pruning.last.final == [final[row]]
                assert max(error(a[0], b[row]) for a, b in zip(apart.logits, together.logits, strict=True)) < TOLERANCE

    def test_windows_that_do_not_fit(self, model, batch):
        with pytest.raises(UnsupportedModel, match="4 x 4 grid. Give window=2"), MustDrop()(model):
            model(**batch)


class TestCalibration:
    def test_thresholds_meet_a_target(self, model, batch):
        samples = tiny.alone(batch)[:2]
        method = MustDrop(vision=False, individual_thr=1.0)
        target = 12.0
        found = calibrate(method, model, samples, target)
        with found(model) as pruning:
            for sample in samples:
                model(**sample)
        reached = pruning.summary()["mean_over_layers"]
        assert abs(reached - target) <= 2 * 16 / N_LAYERS  # one token more or less at the first cut
        assert found.global_thr != method.global_thr and found.individual_thr == 1.0

    def test_prumerge_turns_what_makes_an_outlier(self, model, batch):
        samples = tiny.alone(batch)[:1]
        few = calibrate(PruMerge(layer=-2), model, samples, 2, measure="final")  # one centre, and the extra token
        many = calibrate(PruMerge(layer=-2), model, samples, 4, measure="final")
        assert many.factor < few.factor
        for method, wanted in ((few, 2), (many, 4)):
            with method(model) as pruning:
                model(**samples[0])
            assert pruning.last.final == [wanted]

    def test_refusals(self, model, batch):
        with pytest.raises(ConfigurationError, match="nothing to calibrate"):
            calibrate(DART(), model, [batch], 5)
        with pytest.raises(ConfigurationError, match="cannot be met by global_thr"):
            calibrate(MustDrop(vision=False, individual_thr=1.0), model, [batch], 1)
