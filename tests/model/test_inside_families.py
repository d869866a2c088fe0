"""Methods that cut several times, read attention rows, merge, renumber or cut the cache, on every model family."""

import dataclasses
import functools

import pytest
import torch

import llava
from llava.errors import UnsupportedModel
from llava.reduction import FastV, MustDrop, PyramidDrop, SparseVLM
from tests import tiny
from tests.families import TINY
from tests.model import media_reference as media
from tests.model.qwen_vl_folder import write_checkpoint
from tests.tiny import error

TOLERANCE = 2e-5
METHODS = {
    "fastv": FastV(keep=6, layer=1),
    "pyramiddrop": PyramidDrop(layer_list=(1, 2), image_token_ratio_list=(0.5, 0.25)),
    "sparsevlm": SparseVLM(prune_layers=(0, 1), token_lists=(5, 3)),
    "sparsevlm-v2": SparseVLM(prune_layers=(0, 1), token_lists=(5, 3), mode="v2.0"),
    "mustdrop": MustDrop(prune_layers=(0, 1), global_thr=0.1, individual_thr=1.0, vision=False),
}


@functools.cache
def built(family: str):
    return TINY[family].build("sdpa")


# Everything on the families whose masks, tables or images are special; two methods on all.
CASES = [
    (family, name)
    for family in TINY
    for name in METHODS
    if name in ("pyramiddrop", "mustdrop") or family in ("gemma3", "llava_next")
]


@pytest.mark.parametrize("family, name", CASES)
def test_batch_equals_one_by_one_and_cached_equals_uncached(family, name):
    model, method = built(family), METHODS[name]
    batch, lengths = TINY[family].batch()
    with method(model) as pruning:
        together = tiny.generate(model, batch, 3)
        report = pruning.last
        for row in range(len(lengths)):
            alone, _ = TINY[family].batch((row,))
            apart = tiny.generate(model, alone, 3)
            assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], report.indices[row], strict=True))
            assert max(error(a[0], b[row]) for a, b in zip(apart.logits, together.logits, strict=True)) < TOLERANCE
        uncached = tiny.generate(model, batch, 3, use_cache=False)
    steps = 1 if method.cuts_cache else 3  # without a cache there is none to cut
    differences = [error(a, b) for a, b in zip(together.logits, uncached.logits, strict=True)]
    assert max(differences[:steps]) < TOLERANCE
    assert report.visual == [sum(pictures) for pictures in lengths]
    assert all(after < before for before, after in zip(report.visual, report.final, strict=True) if before)
    for row, pictures in enumerate(lengths):
        assert report.final[row] == sum(map(len, report.indices[row]))
        if name != "mustdrop":
            assert report.final[row] == sum(method.n_kept(n) for n in pictures)


class TestPositionsOfSeveralDimensions:
    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, tmp_path_factory):
        return llava.load(write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Qwen2-VL"), device="cpu")

    def test_they_stay_unless_asked_otherwise(self, loaded):
        model, processor = loaded
        batch = processor([processor.prompt("Is it red?")], [[media.picture(112, 84)]])
        own = dataclasses.replace(METHODS["pyramiddrop"], positions="original")
        with METHODS["pyramiddrop"](model) as pruning:
            auto = tiny.generate(model, batch, 3)
            uncached = tiny.generate(model, batch, 3, use_cache=False)
        assert pruning.last.final == [3]
        with own(model):
            original = tiny.generate(model, batch, 3)
        for a, b, c in zip(auto.logits, original.logits, uncached.logits, strict=True):
            assert torch.equal(a, b) and error(a, c) < TOLERANCE

    def test_counting_them_anew_is_refused(self, loaded):
        method = dataclasses.replace(METHODS["pyramiddrop"], positions="renumbered")
        with pytest.raises(UnsupportedModel, match="a time, a row and a column"):
            method(loaded[0])
