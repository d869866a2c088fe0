"""Qwen-VL and Video-LLaVA from their checkpoint files: plain when not pruned, and the invariants when pruned."""

import inspect

import pytest
import torch
import transformers
from transformers import DynamicCache

from llava import DART, Random
from llava.errors import UnsupportedModel
from llava.reduction import registry
from tests import tiny
from tests.model import media_reference as media
from tests.model.qwen_vl_folder import CLASSES
from tests.model.reference import masked
from tests.tiny import error

TOLERANCE = 3e-5
METHODS = {
    "dart": lambda keep: DART(keep=keep, pivots_visual=1, pivots_text=1),
    "random": lambda keep: Random(keep=keep),
}
PLAIN = {**CLASSES, "video_llava": "VideoLlavaForConditionalGeneration"}


@pytest.fixture(scope="module", params=media.KINDS)
def folder(request, tmp_path_factory):
    return media.write(tmp_path_factory.mktemp("checkpoints") / request.param, request.param)


@pytest.fixture(scope="module")
def sdpa(folder):
    return media.load(folder)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def loaded(request, folder, sdpa):
    return sdpa if request.param == "sdpa" else media.load(folder, "eager")


@pytest.fixture(scope="module")
def batch(sdpa):
    return media.batch_of(sdpa[1])


def generate(model, batch, n_new, **options):
    """Greedy, without the placeholders that random weights would write: they would ask for more images."""
    visual = [model.config.image_token_id, model.config.video_token_id]
    return tiny.generate(model, batch, n_new, suppress_tokens=visual, **options)


def teacher_forced(model, batch, generated):
    """Logits of one run over prompt and answer, at the columns that predicted the answer."""
    n_prompt = batch["input_ids"].shape[1]
    longer = media.with_tokens(batch, generated.sequences[:, n_prompt:-1])
    real = longer["attention_mask"]
    positions = (real.cumsum(1) - 1).clamp_min(0)  # as `generate` numbers them
    own = {} if "mm_token_type_ids" in longer else {"position_ids": positions}
    return model(**longer, **own, use_cache=False).logits[:, n_prompt - 1 :]


def test_unpruned_logits_are_those_of_plain_transformers(folder, sdpa, batch):
    model, processor = sdpa
    plain_class = getattr(transformers, PLAIN[processor.family])
    plain = plain_class.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model) is plain_class
    assert torch.equal(model(**batch).logits, plain(**batch).logits)
    assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
class TestPruned:
    def test_keeping_everything_changes_nothing(self, method, loaded, batch):
        model, _ = loaded
        untouched, before = model(**batch).logits, generate(model, batch, 3)
        with method(1.0)(model):
            assert torch.equal(model(**batch).logits, untouched)
            again = generate(model, batch, 3)
        assert all(torch.equal(a, b) for a, b in zip(again.logits, before.logits, strict=True))

    def test_budget_per_image_and_per_video(self, method, loaded, batch):
        model, processor = loaded
        sizes = [[len(columns) for columns in own] for own in media.items(processor, batch)]
        assert [len(own) for own in sizes] == [1, 3, 0]
        for keep in (3, 0.5):
            chosen = method(keep)
            with chosen(model) as pruning:
                model(**batch)
            assert pruning.last.visual == [sum(own) for own in sizes]
            assert [[len(kept) for kept in own] for own in pruning.last.indices] == [
                [chosen.n_kept(n) for n in own] for own in sizes
            ]

    def test_generation_equals_a_full_run_that_hides_the_dropped_tokens(self, method, loaded, batch):
        model, processor = loaded
        chosen = method(0.5)
        with chosen(model) as pruning:
            generated = generate(model, batch, 4)
        alive = media.alive_columns(processor, batch, pruning.last.indices)
        with masked(model, dict.fromkeys(chosen.layers, alive), batch["attention_mask"]):
            expected = teacher_forced(model, batch, generated)
        for step, logits in enumerate(generated.logits):
            assert error(logits, expected[:, step]) < TOLERANCE

    def test_batch_equals_one_by_one(self, method, loaded, batch):
        model, processor = loaded
        with method(0.5)(model) as pruning:
            together = generate(model, batch, 3)
            kept = pruning.last.indices
            for row in range(len(kept)):
                apart = generate(model, media.batch_of(processor, (row,)), 3)
                assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], kept[row], strict=True))
                for step in range(3):
                    assert error(apart.logits[step][0], together.logits[step][row]) < TOLERANCE

    def test_cached_equals_uncached_and_static(self, method, loaded, batch):
        model, _ = loaded
        with method(0.5)(model):
            cached = generate(model, batch, 3)
            others = [
                generate(model, batch, 3, use_cache=False),
                generate(model, batch, 3, past_key_values=tiny.static_cache(model, batch["input_ids"].shape[1] + 3)),
            ]
        for other in others:
            assert max(error(a, b) for a, b in zip(cached.logits, other.logits, strict=True)) < TOLERANCE

    def test_cache_is_really_shorter_and_order_survives(self, method, loaded, batch):
        model, processor = loaded
        chosen = method(0.5)
        cache = DynamicCache(config=model.config.get_text_config())
        with chosen(model) as pruning:
            model(**batch, past_key_values=cache)
        alive = media.alive_columns(processor, batch, pruning.last.indices)
        lengths = [layer.get_seq_length() for layer in cache.layers]
        assert lengths == [batch["input_ids"].shape[1]] * 2 + [int(alive.sum(1).max())] * 2
        stage = cache.llava_prompt_state.stages[-1]
        for row in range(len(alive)):
            columns = stage.index[row] if stage.valid is None else stage.index[row][stage.valid[row]]
            assert torch.equal(columns, alive[row].nonzero().squeeze(1))

    def test_model_is_restored(self, method, loaded, batch):
        model, _ = loaded
        before = model(**batch).logits
        with method(0.5)(model):
            model(**batch)
        assert torch.equal(model(**batch).logits, before)
        assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_fused_attention_gives_the_same_choice(method, folder, sdpa, batch):
    chosen = []
    for model in (sdpa[0], media.load(folder, "eager")[0]):
        with method(0.5)(model) as pruning:
            model(**batch)
        chosen.append([kept.tolist() for own in pruning.last.indices for kept in own])
    assert chosen[0] == chosen[1]


def test_before_the_language_model_equals_a_full_run_that_hides_the_dropped_tokens(sdpa, batch):
    """Selected before the first layer, survivors keep the positions, and Qwen3-VL's deep features, they had."""
    model, processor = sdpa
    chosen = registry.create("divprune", keep=0.5, positions="original")
    encoded_ahead = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
    if not encoded_ahead and processor.family in ("qwen3_vl", "video_llava"):  # transformers 5.17
        with pytest.raises(UnsupportedModel, match="pip install -U transformers"), chosen(model):
            model(**batch)
        return
    with chosen(model) as pruning:
        generated = generate(model, batch, 3)
        chosen_then = pruning.last.indices
        last = model(**batch).logits[:, -1]
    alive = media.alive_columns(processor, batch, chosen_then)
    with masked(model, {0: alive}, batch["attention_mask"]):
        expected = teacher_forced(model, batch, generated)
        bare = model(**batch, use_cache=False).logits[:, -1]
    for step, logits in enumerate(generated.logits):
        assert error(logits, expected[:, step]) < TOLERANCE
    assert error(last, bare) < TOLERANCE


def test_beams(sdpa):
    model, processor = sdpa
    batch = media.batch_of(processor, (1,))
    with METHODS["dart"](0.5)(model) as pruning:
        ids = model.generate(**batch, num_beams=2, do_sample=False, max_new_tokens=3)
    assert ids.shape[0] == 1 and len(pruning.last.indices[0]) == 3
