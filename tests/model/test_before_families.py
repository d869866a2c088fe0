"""Choosing and merging before the language model, for every model family."""

import dataclasses
import functools

import pytest
import torch

from llava.reduction import DivPrune, Pooling, registry
from tests import tiny
from tests.families import SAMPLES, TINY
from tests.model.test_every_before import BEFORE, pruned
from tests.model.test_every_family import alive_columns, longer, masked
from tests.tiny import error

TOLERANCE = 5e-5
KEEP, N_NEW = 6, 3
METHODS = {"divprune": DivPrune(keep=KEEP), "pooling": Pooling(keep=KEEP)}


@functools.cache
def built(family: str):
    return TINY[family].build("sdpa")


@pytest.mark.parametrize("name", TINY)
class TestEveryFamily:
    @pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
    def test_batch_equals_one_by_one_with_and_without_cache(self, name, method):
        model, family = built(name), TINY[name]
        batch, lengths = family.batch()
        with method(model) as pruning:
            together = tiny.generate(model, batch, N_NEW)
            uncached = tiny.generate(model, batch, N_NEW, use_cache=False)
            assert [len(images) for images in pruning.last.indices] == [len(images) for images in lengths]
            assert pruning.last.final == [sum(min(KEEP, n) for n in images) for images in lengths]
            assert pruning.last.visual == [sum(images) for images in lengths]
            for row in range(len(lengths)):
                apart = tiny.generate(model, family.batch((row,))[0], N_NEW)
                for step in range(N_NEW):
                    assert error(apart.logits[step][0], together.logits[step][row]) < TOLERANCE
        assert max(error(a, b) for a, b in zip(together.logits, uncached.logits, strict=True)) < TOLERANCE
        assert torch.equal(together.sequences[:, : batch["input_ids"].shape[1]], batch["input_ids"])

    def test_survivors_at_original_positions_equal_the_full_run_that_hides_the_others(self, name):
        model, family = built(name), TINY[name]
        batch, lengths = family.batch()
        with dataclasses.replace(METHODS["divprune"], positions="original")(model) as pruning:
            bare = model(**batch).logits
            generated = tiny.generate(model, batch, N_NEW)
        before, after = (alive_columns(family, batch, lengths, report.indices) for report in pruning.reports)
        assert torch.equal(before, after)
        real = batch["attention_mask"].bool()
        first_new = batch["input_ids"].shape[1] - 1
        with masked(model, 0, after, real):
            whole = model(**batch, use_cache=False).logits
            answer = generated.sequences[:, first_new + 1 : -1]
            teacher = model(**longer(family, batch, answer), use_cache=False).logits
        assert error(bare[:, -1], whole[:, -1]) < TOLERANCE
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, first_new + step]) < TOLERANCE


@pytest.mark.parametrize("name", BEFORE)
class TestTiledImages:
    """Every method on a model that cuts images into tiles."""

    def test_batch_equals_one_by_one_and_counts_are_as_announced(self, name):
        model, family = built("llava_next"), TINY["llava_next"]
        batch, lengths = family.batch()
        with pruned(registry.create(name, keep=20), model) as pruning:
            together = tiny.generate(model, batch, N_NEW)
            report = pruning.last
            announced = [
                [pruning.method.n_kept(n, 3 if number % 2 else 5) for n, number in zip(images, numbers, strict=True)]
                for images, numbers in zip(lengths, SAMPLES, strict=True)
            ]
            if None not in [count for images in announced for count in images]:
                assert report.final == [sum(images) for images in announced]
            for row in range(len(lengths)):
                apart = tiny.generate(model, family.batch((row,))[0], N_NEW)
                assert pruning.last.final == report.final[row : row + 1]
                for step in range(N_NEW):
                    assert error(apart.logits[step][0], together.logits[step][row]) < TOLERANCE
        for images, counts in zip(report.indices, lengths, strict=True):
            assert all(offsets.tolist() == sorted(offsets.tolist()) for offsets in images)
            assert all(int(offsets.max()) < n for offsets, n in zip(images, counts, strict=True) if len(offsets))

    def test_keeping_everything_changes_nothing(self, name):
        model = built("llava_next")
        batch, _ = TINY["llava_next"].batch()
        untouched = model(**batch).logits
        with pruned(registry.create(name, keep=1.0), model):
            assert torch.equal(model(**batch).logits, untouched)
