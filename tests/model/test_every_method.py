"""What must hold for every registered method that cuts inside the language model; a new method is covered at once.

Methods that act before the language model have tests of the same kind in `test_every_before.py`.
"""

import dataclasses
import functools

import pytest
import torch
from transformers import DynamicCache

from llava.model.positions import renumbers
from llava.reduction import registry
from llava.reduction.base import LLMStage
from llava.reduction.image import BeforeLLM
from tests import tiny
from tests.model.reference import alive_columns, rearranged, with_tokens
from tests.tiny import N_LAYERS, N_PATCHES, error

TOLERANCE = 2e-5
SETTINGS = [("llava", "sdpa"), ("llava-qwen3", "eager")]
INSIDE = [name for name in registry.names() if not issubclass(registry.get(name), BeforeLLM)]
# A tower of its own would make the prompt another one: MustDrop's has tests in test_mustdrop_model.py.
OPTIONS = {"mustdrop": {"vision": False}}
# The same class working differently; an option `keep` of None means that the method's own rule decides.
MORE = {
    "sparsevlm-v2": ("sparsevlm", {"mode": "v2.0"}),
    "sparsevlm-clean": ("sparsevlm", {"variant": "clean", "positions": "original"}),
    "sparsevlm-v1": ("sparsevlm", {"mode": "v1.0", "keep": 64}),
    "pyramiddrop-released": ("pyramiddrop", {"keep": None}),
    "mustdrop-thresholds": ("mustdrop", {"global_thr": 0.05, "individual_thr": 0.1, "keep": None}),
    "fastv-together": ("fastv", {"images": "together"}),
}
SUBJECTS = [*INSIDE, *MORE]
# (method, setting): every method in every setting, its other forms in the first.
BASIC = [(name, setting) for setting in SETTINGS for name in INSIDE]
ALL = [*BASIC, *((name, SETTINGS[0]) for name in MORE)]


@functools.cache
def built(family: str, kernel: str):
    return tiny.build(family, kernel)


def create(subject: str, **options):
    name, more = MORE.get(subject, (subject, {}))
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    options = {
        **{option: value for option, value in options.items() if option in known},
        **OPTIONS.get(name, {}),
        **more,
    }
    return registry.create(name, **options)


def new_cache(model):
    return DynamicCache(config=model.config.get_text_config())


def over(cases):
    """Parametrise a test over (method, setting)."""
    ids = [f"{name}-{'-'.join(setting)}" for name, setting in cases]
    return pytest.mark.parametrize("name, model", cases, indirect=["model"], ids=ids)


@pytest.fixture
def model(request):
    return built(*request.param)


@pytest.fixture
def batch():
    return tiny.inputs()


@over(BASIC)
def test_keeping_everything_changes_nothing(name, model, batch):
    untouched = model(**batch).logits
    generated = tiny.generate(model, batch)
    with create(name, keep=1.0)(model):
        assert torch.equal(model(**batch).logits, untouched)
        again = tiny.generate(model, batch)
    assert all(torch.equal(a, b) for a, b in zip(again.logits, generated.logits, strict=True))


@pytest.mark.parametrize("keep", [8, 0.5])
@over(BASIC)
def test_keeps_exactly_the_budget_it_announces(name, keep, model, batch):
    with create(name, keep=keep)(model) as pruning:
        model(**batch)
    announced = pruning.method.n_kept(N_PATCHES)
    assert [[len(offsets) for offsets in images] for images in pruning.last.indices] == [
        [announced],
        [announced] * 3,
        [],
    ]
    assert pruning.last.final == [announced, 3 * announced, 0]


@over(ALL)
class TestEveryMethod:
    def test_order_and_text_survive(self, name, model, batch):
        cache = new_cache(model)
        with create(name, keep=8)(model) as pruning:
            model(**batch, past_key_values=cache)
        alive = alive_columns(batch, pruning.last.indices)
        text = alive_columns(batch, [[torch.arange(0)] * len(images) for images in pruning.last.indices])
        stages = cache.llava_prompt_state.stages
        for stage in stages:
            valid = torch.ones_like(stage.index, dtype=torch.bool) if stage.valid is None else stage.valid
            for row in range(len(alive)):
                columns, sources = stage.index[row][valid[row]].tolist(), stage.source[row][valid[row]].tolist()
                assert columns == sorted(set(columns))
                assert len(set(sources)) == len(sources)
                assert set(text[row].nonzero().squeeze(1).tolist()) <= set(columns) & set(sources)
                if stage is stages[-1]:
                    assert sorted(sources) == alive[row].nonzero().squeeze(1).tolist()

    def test_equals_full_run_that_hides_the_dropped_tokens(self, name, model, batch):
        method = create(name, keep=8)
        bare, cache = new_cache(model), new_cache(model)
        with method(model):
            prefill = model(**batch, past_key_values=bare).logits
            generated = tiny.generate(model, batch, past_key_values=cache)
        states = [entry.llava_prompt_state for entry in (bare, cache)]
        renumber = renumbers(method, model.config.get_text_config())
        with rearranged(model, states[0], batch["attention_mask"], renumber):
            full = model(**batch, use_cache=False).logits
        with rearranged(model, states[1], batch["attention_mask"], renumber):
            longer = with_tokens(batch, generated.sequences[:, batch["input_ids"].shape[1] : -1])
            teacher = model(**longer, use_cache=False).logits
        if states[0].stages:
            stage = states[0].stages[-1]
            expected = full.gather(1, stage.index[..., None].expand(-1, -1, full.shape[-1]))
            assert error(prefill[stage.valid], expected[stage.valid]) < TOLERANCE
        first_new = batch["input_ids"].shape[1] - 1
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, first_new + step]) < TOLERANCE

    def test_batch_equals_one_by_one(self, name, model, batch):
        with create(name, keep=8)(model) as pruning:
            together = tiny.generate(model, batch)
            kept = pruning.last.indices
            for row, single in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, single)
                assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], kept[row], strict=True)), (
                    "other tokens were kept"
                )
                for step in range(len(apart.logits)):
                    assert error(apart.logits[step][0], together.logits[step][row]) < TOLERANCE

    def test_cached_equals_uncached_decoding(self, name, model, batch):
        method = create(name, keep=8)
        with method(model) as pruning:
            cached = tiny.generate(model, batch)
            n_reports = len(pruning.reports)
            uncached = tiny.generate(model, batch, use_cache=False)
        assert len(pruning.reports) == n_reports + 1, "every step without a cache was counted as a prompt"
        differs = getattr(method, "cuts_cache", False)  # without a cache there is nothing to cut: only the first step
        for a, b in zip(cached.logits[: 1 if differs else None], uncached.logits, strict=False):
            assert error(a, b) < TOLERANCE

    def test_static_cache_equals_dynamic_cache(self, name, model, batch):
        n_columns, n_new = batch["input_ids"].shape[1], 5
        method = create(name, keep=8)
        with method(model):
            cache = new_cache(model)
            dynamic = tiny.generate(model, batch, n_new, past_key_values=cache)
            lengths = [layer.get_seq_length() + 1 for layer in cache.layers]
            sizes = (n_columns + n_new,) if getattr(method, "cuts_cache", False) else (n_columns + n_new, lengths)
            for size in sizes:
                static = tiny.generate(model, batch, n_new, past_key_values=tiny.static_cache(model, size))
                assert max(error(a, b) for a, b in zip(static.logits, dynamic.logits, strict=True)) < TOLERANCE

    def test_cache_is_really_shorter(self, name, model, batch):
        cache, full = new_cache(model), new_cache(model)
        model(**batch, past_key_values=full)
        with create(name, keep=8)(model) as pruning:
            model(**batch, past_key_values=cache)
        method = pruning.method
        first_cut = min(method.layers, default=N_LAYERS)
        if getattr(method, "cuts_cache", False):
            first_cut = max(1, first_cut - 1)  # its cache is cut at the end; the first layer's never is
        nbytes = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
        unpruned = [layer.keys.nbytes + layer.values.nbytes for layer in full.layers]
        assert nbytes[:first_cut] == unpruned[:first_cut]
        assert all(a < b for a, b in zip(nbytes[first_cut:], unpruned[first_cut:], strict=True))
        assert pruning.last.cache_bytes == sum(nbytes)
        assert pruning.last.cache_bytes_unpruned == sum(unpruned)

    def test_accounting_of_several_cuts(self, name, model, batch):
        """Layer means from the lengths of the caches of a sample alone; a cache cut at the end is put back first."""
        single = tiny.alone(batch)[1]
        cache = new_cache(model)
        with create(name, keep=8)(model) as pruning:
            model(**single, past_key_values=cache)
        report, state = pruning.last, cache.llava_prompt_state
        n_text = single["input_ids"].shape[1] - 3 * N_PATCHES
        lengths = [layer.get_seq_length() - n_text for layer in cache.layers]
        for layer in state.cached:
            earlier = [kept[0] for cut, kept in zip(report.cut_layers, report.kept, strict=True) if cut <= layer]
            lengths[layer] = earlier[-1] if earlier else 3 * N_PATCHES
        assert report.mean_over_layers == [sum(lengths) / N_LAYERS]
        assert report.final == [lengths[-1]]

    def test_model_is_restored(self, name, model, batch):
        before = model(**batch).logits
        attributes = snapshot(model)
        with create(name, keep=8)(model):
            model(**batch)
        assert snapshot(model) == attributes
        with pytest.raises(ZeroDivisionError), create(name, keep=8)(model):
            model(**batch)
            raise ZeroDivisionError
        assert snapshot(model) == attributes
        assert torch.equal(model(**batch).logits, before)


def snapshot(model) -> dict:
    """Identity of everything every module holds, hooks included."""
    return {
        name: {
            key: {k: id(v) for k, v in value.items()} if isinstance(value, dict) else id(value)
            for key, value in vars(module).items()
        }
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("name", SUBJECTS)
def test_fused_attention_gives_the_same_choice(name, batch):
    chosen = []
    for kernel in ("sdpa", "eager"):
        with create(name, keep=8)(built("llava", kernel)) as pruning:
            built("llava", kernel)(**batch)
        chosen.append([offsets.tolist() for images in pruning.last.indices for offsets in images])
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_several_text_models(family, batch):
    """Cuts, grouped heads and positions counted anew, on every text model."""
    model = built(family, "sdpa")
    with create("pyramiddrop", keep=8)(model) as pruning:
        cached = tiny.generate(model, batch)
        uncached = tiny.generate(model, batch, use_cache=False)
    assert pruning.last.final[0] < N_PATCHES
    assert max(error(a, b) for a, b in zip(cached.logits, uncached.logits, strict=True)) < TOLERANCE


def test_every_method_inside_the_model_cuts_somewhere():
    assert all(issubclass(registry.get(name), LLMStage) or not create(name).layers for name in INSIDE)
