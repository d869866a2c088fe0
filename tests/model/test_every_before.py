"""What must hold for every registered method that acts before the language model; a new one is covered at once."""

import dataclasses
import functools

import pytest
import torch
from transformers import DynamicCache

from llava.errors import UnsupportedModel
from llava.reduction import registry
from llava.reduction.image import BeforeLLM
from tests import tiny
from tests.model.reference import alive_columns, masked, with_tokens
from tests.tiny import IMAGE, N_LAYERS, N_PATCHES, error

TOLERANCE = 2e-5
KEEP, N_NEW = 8, 3
BEFORE = [name for name in registry.names() if issubclass(registry.get(name), BeforeLLM)]


@functools.cache
def built(kernel: str):
    return tiny.build("llava", kernel)


def create(name: str, **options):
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    return registry.create(name, **{option: value for option, value in options.items() if option in known})


def pruned(method, model):
    """The pruning, or a skipped test where this model is refused (which has tests of its own)."""
    try:
        return method(model)
    except UnsupportedModel as error:
        pytest.skip(str(error))


@pytest.fixture
def model():
    return built("sdpa")


@pytest.fixture
def batch():
    return tiny.inputs()


def real_lengths(batch):
    return batch["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize("name", BEFORE)
class TestEveryMethodBeforeTheModel:
    def test_keeping_everything_changes_nothing(self, name, model, batch):
        untouched = model(**batch).logits
        generated = tiny.generate(model, batch, N_NEW)
        with pruned(create(name, keep=1.0), model):
            assert torch.equal(model(**batch).logits, untouched)
            again = tiny.generate(model, batch, N_NEW)
        assert torch.equal(again.sequences, generated.sequences)
        assert all(torch.equal(a, b) for a, b in zip(again.logits, generated.logits, strict=True))

    def test_the_prompt_is_shorter_by_what_was_dropped(self, name, model, batch):
        method = create(name, keep=KEEP)
        cache, full = (DynamicCache(config=model.config.get_text_config()) for _ in range(2))
        model(**batch, past_key_values=full)
        with pruned(method, model) as pruning:
            logits = model(**batch, past_key_values=cache).logits
        report, announced = pruning.last, method.n_kept(N_PATCHES)
        if announced is not None:
            assert report.final == [announced, 3 * announced, 0]
        assert report.visual == [N_PATCHES, 3 * N_PATCHES, 0]
        assert report.cut_layers == [0]
        assert report.kept == [report.final]
        assert report.mean_over_layers == report.final
        lengths = [
            n - before + after
            for n, before, after in zip(real_lengths(batch), report.visual, report.final, strict=True)
        ]
        assert logits.shape[1] == max(lengths)
        assert [layer.get_seq_length() for layer in cache.layers] == [max(lengths)] * N_LAYERS
        assert report.cache_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert report.cache_bytes_unpruned == sum(layer.keys.nbytes + layer.values.nbytes for layer in full.layers)
        assert all(a < b for a, b in zip(report.flops_exact[:2], report.flops_exact_unpruned[:2], strict=True))

    def test_choices_are_tokens_of_the_image_in_order(self, name, model, batch):
        with pruned(create(name, keep=KEEP), model) as pruning:
            model(**batch)
        assert [len(images) for images in pruning.last.indices] == [1, 3, 0]
        for images in pruning.last.indices:
            for offsets in images:
                assert offsets.tolist() == sorted(offsets.tolist())
                assert all(0 <= offset < N_PATCHES for offset in offsets.tolist())

    def test_batch_equals_one_by_one(self, name, model, batch):
        with pruned(create(name, keep=KEEP), model) as pruning:
            together = tiny.generate(model, batch, N_NEW)
            kept = pruning.last.indices
            for row, single in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, single, N_NEW)
                assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], kept[row], strict=True))
                for step in range(N_NEW):
                    assert error(apart.logits[step][0], together.logits[step][row]) < TOLERANCE

    def test_cached_static_and_uncached_decoding_agree(self, name, model, batch):
        with pruned(create(name, keep=KEEP), model) as pruning:
            cached = tiny.generate(model, batch, N_NEW)
            n_reports = len(pruning.reports)
            uncached = tiny.generate(model, batch, N_NEW, use_cache=False)
            assert len(pruning.reports) == n_reports + 1, "every step without a cache was counted as a prompt"
            size = batch["input_ids"].shape[1] + N_NEW
            static = tiny.generate(model, batch, N_NEW, past_key_values=tiny.static_cache(model, size))
        for other in (uncached, static):
            assert max(error(a, b) for a, b in zip(cached.logits, other.logits, strict=True)) < TOLERANCE
        assert torch.equal(cached.sequences[:, : batch["input_ids"].shape[1]], batch["input_ids"])

    def test_kernels_choose_alike(self, name, batch):
        reports, logits = [], []
        for kernel in ("sdpa", "eager"):
            with pruned(create(name, keep=KEEP), built(kernel)) as pruning:
                logits.append(built(kernel)(**batch).logits)
            reports.append(pruning.last)
        for a, b in zip(*(report.indices for report in reports), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert error(*(each[:, -1] for each in logits)) < TOLERANCE

    def test_model_is_restored(self, name, model, batch):
        untouched, before = model(**batch).logits, wrapped(model)
        with pruned(create(name, keep=KEEP), model):
            tiny.generate(model, batch, N_NEW)
            assert wrapped(model) - before, "nothing was wrapped"
        assert wrapped(model) == before
        assert torch.equal(model(**batch).logits, untouched)

    def test_survivors_at_original_positions_equal_the_full_run_that_hides_the_others(self, name, model, batch):
        method = create(name, keep=KEEP)
        if not chooses(method, model, batch):
            pytest.skip("tokens are merged: no mask over the full prompt says the same")
        with pruned(dataclasses.replace(method, positions="original"), model) as pruning:
            generated = tiny.generate(model, batch, N_NEW)
        alive = alive_columns(batch, pruning.last.indices)
        with masked(model, {0: alive}, batch["attention_mask"]):
            longer = with_tokens(batch, generated.sequences[:, batch["input_ids"].shape[1] : -1])
            teacher = model(**longer, use_cache=False).logits
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, batch["input_ids"].shape[1] - 1 + step]) < TOLERANCE

    def test_renumbered_survivors_equal_a_prompt_made_by_hand(self, name, model):
        """Plain transformers, from the features of the survivors and a prompt with as many placeholders."""
        batch = tiny.inputs(tiny.ONE)
        method = create(name, keep=KEEP)
        if not chooses(method, model, batch):
            pytest.skip("tokens are merged: their values are tested where the method is")
        with pruned(method, model) as pruning:
            generated = tiny.generate(model, batch, N_NEW)
        offsets = pruning.last.indices[0][0]
        features = model.model.get_image_features(batch["pixel_values"], return_dict=True).pooler_output[0][offsets]
        ids = batch["input_ids"][0]
        first = int((ids == IMAGE).nonzero()[0])
        columns = torch.cat([torch.arange(first), first + offsets, torch.arange(first + N_PATCHES, len(ids))])
        embeds = tiny.embedded(model, ids[None, columns], features)
        mask = torch.ones(1, len(columns), dtype=torch.long)
        by_hand = tiny.generate(model, {"inputs_embeds": embeds, "attention_mask": mask}, N_NEW)
        assert max(error(a, b) for a, b in zip(generated.logits, by_hand.logits, strict=True)) < TOLERANCE


def chooses(method, model, batch) -> bool:
    """Whether what goes on are tokens of the image, unchanged."""
    seen = []
    select = type(method).select_image

    def spy(self, image):
        seen.append(select(self, image))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "select_image", spy)
        with pruned(method, model):
            model(**batch)
    return all(kept.values is None for kept in seen)


def wrapped(model) -> set[str]:
    """Names of modules with a forward or generate of their own."""
    modules = {name for name, module in model.named_modules() if "forward" in vars(module)}
    return modules | ({"generate"} & vars(model).keys())
