"""What must hold for every registered method, text model and attention kernel; a new method is covered at once."""

import dataclasses
import functools

import pytest
import torch
from transformers import DynamicCache

from llava.reduction import registry
from llava.reduction.base import InLLM
from tests import tiny
from tests.model.reference import alive_columns, masked, with_tokens
from tests.tiny import N_LAYERS, N_PATCHES, error

TOLERANCE = 2e-5
SETTINGS = [(family, kernel) for family in tiny.FAMILIES for kernel in ("sdpa", "eager")]


@functools.cache
def built(family: str, kernel: str):
    return tiny.build(family, kernel)


def create(name: str, **options):
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    return registry.create(name, **{option: value for option, value in options.items() if option in known})


@pytest.fixture(params=SETTINGS, ids=lambda setting: "-".join(setting))
def model(request):
    return built(*request.param)


@pytest.fixture
def batch():
    return tiny.inputs()


@pytest.mark.parametrize("name", registry.names())
class TestEveryMethod:
    def test_keeping_everything_changes_nothing(self, name, model, batch):
        untouched = model(**batch).logits
        generated = tiny.generate(model, batch)
        with create(name, keep=1.0)(model):
            assert torch.equal(model(**batch).logits, untouched)
            again = tiny.generate(model, batch)
        assert all(torch.equal(a, b) for a, b in zip(again.logits, generated.logits, strict=True))

    @pytest.mark.parametrize("keep", [8, 0.5])
    def test_keeps_exactly_the_budget_it_announces(self, name, keep, model, batch):
        method = create(name, keep=keep)
        with method(model) as pruning:
            model(**batch)
        announced = pruning.method.n_kept(N_PATCHES)
        assert [[len(offsets) for offsets in images] for images in pruning.last.indices] == [
            [announced],
            [announced] * 3,
            [],
        ]
        assert pruning.last.final == [announced, 3 * announced, 0]

    def test_order_and_text_survive(self, name, model, batch):
        cache = DynamicCache(config=model.config.get_text_config())
        with create(name, keep=8)(model) as pruning:
            model(**batch, past_key_values=cache)
        alive = alive_columns(batch, pruning.last.indices)
        for stage in cache.llava_prompt_state.stages:
            valid = torch.ones_like(stage.index, dtype=torch.bool) if stage.valid is None else stage.valid
            for row in range(len(alive)):
                columns = stage.index[row][valid[row]]
                assert columns.tolist() == sorted(set(columns.tolist()))
                assert torch.equal(columns, alive[row].nonzero().squeeze(1))

    def test_equals_full_run_that_hides_the_dropped_tokens(self, name, model, batch):
        method = create(name, keep=8)
        with method(model) as pruning:
            cache = DynamicCache(config=model.config.get_text_config())
            prefill = model(**batch, past_key_values=cache).logits
            generated = tiny.generate(model, batch)
        # A bare forward numbers padding too, generate does not; keys, so choices, may differ between the two.
        bare, generating = (alive_columns(batch, report.indices) for report in pruning.reports)
        with masked(model, dict.fromkeys(method.layers, bare), batch["attention_mask"]):
            full = model(**batch, use_cache=False).logits
        with masked(model, dict.fromkeys(method.layers, generating), batch["attention_mask"]):
            longer = with_tokens(batch, generated.sequences[:, batch["input_ids"].shape[1] : -1])
            teacher = model(**longer, use_cache=False).logits
        state = cache.llava_prompt_state
        if state.stages:
            index, valid = state.stages[-1].index, state.stages[-1].valid
            expected = full.gather(1, index[..., None].expand(-1, -1, full.shape[-1]))
            assert error(prefill[valid], expected[valid]) < TOLERANCE
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
        with create(name, keep=8)(model) as pruning:
            cached = tiny.generate(model, batch)
            n_reports = len(pruning.reports)
            uncached = tiny.generate(model, batch, use_cache=False)
        assert len(pruning.reports) == n_reports + 1, "every step without a cache was counted as a prompt"
        assert max(error(a, b) for a, b in zip(cached.logits, uncached.logits, strict=True)) < TOLERANCE

    def test_static_cache_equals_dynamic_cache(self, name, model, batch):
        n_columns, n_new = batch["input_ids"].shape[1], 5
        with create(name, keep=8)(model):
            cache = DynamicCache(config=model.config.get_text_config())
            dynamic = tiny.generate(model, batch, n_new, past_key_values=cache)
            lengths = [layer.get_seq_length() + 1 for layer in cache.layers]
            for size in (n_columns + n_new, lengths):
                static = tiny.generate(model, batch, n_new, past_key_values=tiny.static_cache(model, size))
                assert max(error(a, b) for a, b in zip(static.logits, dynamic.logits, strict=True)) < TOLERANCE

    def test_cache_is_really_shorter(self, name, model, batch):
        method = create(name, keep=8)
        cache, full = (DynamicCache(config=model.config.get_text_config()) for _ in range(2))
        model(**batch, past_key_values=full)
        with method(model) as pruning:
            model(**batch, past_key_values=cache)
        first_cut = min(method.layers, default=N_LAYERS)
        nbytes = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
        unpruned = [layer.keys.nbytes + layer.values.nbytes for layer in full.layers]
        assert nbytes[:first_cut] == unpruned[:first_cut]
        assert all(a < b for a, b in zip(nbytes[first_cut:], unpruned[first_cut:], strict=True))
        assert pruning.last.cache_bytes == sum(nbytes)
        assert pruning.last.cache_bytes_unpruned == sum(unpruned)

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


@pytest.mark.parametrize("name", registry.names())
def test_fused_attention_gives_the_same_choice(name, batch):
    chosen = []
    for kernel in ("sdpa", "eager"):
        with create(name, keep=8)(built("llava", kernel)) as pruning:
            built("llava", kernel)(**batch)
        chosen.append([offsets.tolist() for images in pruning.last.indices for offsets in images])
    assert chosen[0] == chosen[1]


def test_every_method_inside_the_model_cuts_somewhere():
    assert all(issubclass(registry.get(name), InLLM) or not create(name).layers for name in registry.names())
