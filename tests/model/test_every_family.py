"""What must hold for every model family, with a selector that looks at tensors and one that does not."""

import functools
from contextlib import contextmanager

import pytest
import torch
from transformers import DynamicCache

from llava.model.families import FAMILIES, family_of
from llava.reduction import DART, Random
from tests import tiny
from tests.families import TINY
from tests.model.test_every_method import snapshot
from tests.tiny import error

TOLERANCE = 2e-5
METHODS = {"dart": DART(keep=6, pivots_visual=2, pivots_text=2), "random": Random(keep=6)}
ELSEWHERE = {
    "video_llava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
}  # from their folders, with videos, in a file of their own
EVERYTHING = {"dart": DART(keep=1.0), "random": Random(keep=1.0)}
SETTINGS = [(family, kernel) for family in TINY for kernel in ("sdpa", "eager")]


@functools.cache
def built(family: str, kernel: str):
    return TINY[family].build(kernel)


@pytest.fixture(params=SETTINGS, ids="-".join)
def setting(request):
    return request.param


@pytest.fixture
def family(setting):
    return TINY[setting[0]]


@pytest.fixture
def model(setting):
    return built(*setting)


def new_cache(model):
    return DynamicCache(config=model.config.get_text_config())


def alive_columns(family, batch, lengths, indices):
    """(B, N) bool: text, and of every picture the tokens at the given offsets."""
    visual = batch["input_ids"] == family.placeholder
    alive = batch["attention_mask"].bool() & ~visual
    for row, pictures in enumerate(lengths):
        columns = visual[row].nonzero().squeeze(1).split(pictures) if pictures else []
        for own, offsets in zip(columns, indices[row], strict=True):
            alive[row, own[offsets]] = True
    return alive


@contextmanager
def masked(model, first_layer, alive, real):
    """Run at full length; from a layer on, columns that are not alive are hidden on top of the model's own mask."""

    def before(module, args, kwargs):
        length, given = args[0].shape[1], kwargs.get("attention_mask")
        seen = torch.nn.functional.pad(alive & real, (0, length - alive.shape[1]), value=True)[:, None, None, :]
        if given is None:
            given = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        own = torch.eye(length, dtype=torch.bool)  # a padded query must see something
        if given.dtype == torch.bool:
            mask = given & seen | own
        else:
            mask = given.masked_fill(~seen & ~own, torch.finfo(given.dtype).min)
        return args, {**kwargs, "attention_mask": mask}

    layers = family_of(model).decoder(model).layers
    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers[first_layer:]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def longer(family, batch, new):
    """The batch with generated tokens appended."""
    ids = torch.cat([batch["input_ids"], new], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(new)], dim=1)
    return {**batch, "input_ids": ids, "attention_mask": mask, **family.finish(ids)}


@pytest.mark.parametrize("name", METHODS)
class TestEveryFamily:
    def test_keeping_everything_changes_nothing(self, name, family, model):
        batch, _ = family.batch()
        untouched, generated = model(**batch).logits, tiny.generate(model, batch)
        with EVERYTHING[name](model):
            assert torch.equal(model(**batch).logits, untouched)
            again = tiny.generate(model, batch)
        assert all(torch.equal(a, b) for a, b in zip(again.logits, generated.logits, strict=True))

    def test_budget_per_image_and_shorter_cache(self, name, family, model):
        batch, lengths = family.batch()
        cache, full = new_cache(model), new_cache(model)
        model(**batch, past_key_values=full)
        before = snapshot(model)
        with METHODS[name](model) as pruning:
            model(**batch, past_key_values=cache)
            tiny.generate(model, batch, 2)
        assert snapshot(model) == before, "the model is not as it was"
        expected = [[METHODS[name].n_kept(n) for n in pictures] for pictures in lengths]
        for report in pruning.reports:
            assert [[len(offsets) for offsets in pictures] for pictures in report.indices] == expected
        stored, unpruned = ([layer.keys.shape[2] for layer in c.layers] for c in (cache, full))
        cut = METHODS[name].layer
        assert stored[:cut] == unpruned[:cut]
        assert all(a < b for a, b in zip(stored[cut:], unpruned[cut:], strict=True))
        nbytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert pruning.reports[0].cache_bytes == nbytes

    def test_equals_full_run_that_hides_the_dropped_tokens(self, name, family, model):
        batch, lengths = family.batch()
        method, cache = METHODS[name], new_cache(model)
        with method(model) as pruning:
            prefill = model(**batch, past_key_values=cache).logits
            generated = tiny.generate(model, batch)
        bare, generating = (alive_columns(family, batch, lengths, report.indices) for report in pruning.reports)
        real = batch["attention_mask"].bool()
        with masked(model, method.layer, bare, real):
            full = model(**batch, use_cache=False).logits
        stage = cache.llava_prompt_state.stages[-1]
        expected = full.gather(1, stage.index[..., None].expand(-1, -1, full.shape[-1]))
        assert error(prefill[stage.valid], expected[stage.valid]) < TOLERANCE
        with masked(model, method.layer, generating, real):
            teacher = model(
                **longer(family, batch, generated.sequences[:, batch["input_ids"].shape[1] : -1]), use_cache=False
            ).logits
        first_new = batch["input_ids"].shape[1] - 1
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, first_new + step]) < TOLERANCE

    def test_batch_equals_one_by_one_and_cached_equals_uncached(self, name, family, model):
        batch, _ = family.batch()
        with METHODS[name](model) as pruning:
            together = tiny.generate(model, batch)
            kept = pruning.last.indices
            uncached = tiny.generate(model, batch, use_cache=False)
            for row in range(3):
                apart = tiny.generate(model, family.batch((row,))[0])
                for a, b in zip(pruning.last.indices[0], kept[row], strict=True):
                    assert torch.equal(a, b), "other tokens were kept"
                for a, b in zip(apart.logits, together.logits, strict=True):
                    assert error(a[0], b[row]) < TOLERANCE
        assert max(error(a, b) for a, b in zip(together.logits, uncached.logits, strict=True)) < TOLERANCE

    def test_static_cache_equals_dynamic_cache(self, name, family, model):
        batch, _ = family.batch()
        with METHODS[name](model):
            dynamic = tiny.generate(model, batch)
            cache = tiny.static_cache(model, batch["input_ids"].shape[1] + 5)
            static = tiny.generate(model, batch, past_key_values=cache)
        assert max(error(a, b) for a, b in zip(static.logits, dynamic.logits, strict=True)) < TOLERANCE


def test_every_family_is_here():
    missing = {family.name for family in FAMILIES} - set(TINY) - ELSEWHERE
    assert not missing, f"no tiny model in tests/families.py for: {', '.join(sorted(missing))}"
