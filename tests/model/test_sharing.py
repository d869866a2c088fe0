"""Prompts about one image share its prefix, and their answers are those they get alone: over the registry."""

import dataclasses
import functools

import pytest
import torch
from transformers import DynamicCache

from llava import DART, Chain, FastV, NoReduction, Reuse, Uniform
from llava.errors import UnsupportedModel
from llava.model.pruning import Pruning
from llava.model.reuse import PREFIX
from llava.reduction import registry
from llava.reduction.base import InLLM
from llava.reduction.image import BeforeLLM
from tests import tiny
from tests.model.sharing_batches import WORDS_BEFORE, questions
from tests.tiny import N_LAYERS, N_PATCHES, error

N_NEW = 3
TOLERANCE = 2e-5
OPTIONS = {"mustdrop": {"window": 2}}
MORE = {
    "dart-visual-pivots": DART(keep=8, pivots_text=0),
    "dart-attention": DART(keep=8, criterion="attention_max"),
    "dart-first-layer": DART(keep=8, criterion="attention_max", layer=1),
    "uniform+dart": Chain(Uniform(keep=12), DART(keep=8)),
    "uniform+dart-visual-pivots": Chain(Uniform(keep=12), DART(keep=8, pivots_text=0)),
    "uniform-original": Uniform(keep=8, positions="original"),
}
METHODS = [*registry.names(), *MORE]
# Batch 1 twice about one image, four at once with another image and a text-only prompt among them, then again.
ONE = (questions([1]), questions([2]))
FOUR = (questions([1, 2, 3, 5], [0, 0, 1, None]), questions([6, 7, 8, 9], [1, 0, 0, 1]))


@functools.cache
def built(kernel="sdpa"):
    return tiny.build("llava", kernel)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def create(name):
    if name in MORE:
        return MORE[name]
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    return registry.create(name, **({"keep": 8} if "keep" in known else {}), **OPTIONS.get(name, {}))


def pruned(method, model, **options):
    """The pruning, or a skipped test where this model is refused (which has tests of its own)."""
    try:
        return method(model, **options)
    except UnsupportedModel as problem:
        pytest.skip(str(problem))


def same(a, b):
    """Whether two generations gave the same tokens and, to rounding, the same logits."""
    return torch.equal(a.sequences, b.sequences) and max(map(error, a.logits, b.logits)) < TOLERANCE


def shapes(generated):
    return [layer.keys.shape for layer in generated.past_key_values.layers]


@functools.cache
def plain(name, batch):
    """(generation, kept offsets) without reuse."""
    given = {"one": ONE, "four": FOUR}[batch]
    with pruned(create(name), built()) as pruning:
        found = [tiny.generate(built(), each, N_NEW) for each in given]
        return found, [[[own.tolist() for own in row] for row in report.indices] for report in pruning.reports]


@pytest.mark.parametrize("batch", ["one", "four"])
@pytest.mark.parametrize("name", METHODS)
def test_same_answers_choice_and_cache_as_without_reuse(name, batch):
    given, reuse = {"one": ONE, "four": FOUR}[batch], Reuse()
    expected, kept = plain(name, batch)
    with pruned(create(name), built(), reuse=reuse) as pruning:
        found = [tiny.generate(built(), each, N_NEW) for each in given]
        reports = pruning.reports
    assert all(map(same, found, expected))
    assert [shapes(one) for one in found] == [shapes(one) for one in expected]
    assert [[[own.tolist() for own in row] for row in report.indices] for report in reports] == kept
    images, asked = (1, 2) if batch == "one" else (2, 7)
    nothing_before = name == "dart-first-layer"  # it needs all queries of layer 0
    shared = {"hits": asked - images, "misses": images}
    assert reuse.statistics()[PREFIX] == ({"hits": 0, "misses": 0} if nothing_before else shared)
    assert not reuse.notes


class TestQuestionDependence:
    """A choice may only be stored if it is the same for every question: what the classes say, held to what they do."""

    @pytest.mark.parametrize("name", METHODS)
    def test_what_is_said_not_to_depend_on_the_question_does_not(self, name):
        method = create(name)
        if method.depends_on_question:
            pytest.skip("it says that it depends on the question")
        with pruned(method, built()) as pruning:
            for question in range(4):
                built()(**questions([question]))
            first, *others = [report.indices[0][0].tolist() for report in pruning.reports]
        assert all(other == first for other in others)

    @pytest.mark.parametrize("name", METHODS)
    def test_what_depends_on_it_is_chosen_anew_every_time(self, name):
        method = create(name)
        inside = next((part for part in method.parts if not isinstance(part, BeforeLLM) and part.layers), None)
        if inside is None or not inside.depends_on_question:
            pytest.skip("it does not")
        asked = []

        def watched(self, state):
            asked.append(state.layer)
            return type(inside).select(self, state)

        spy = dataclasses.make_dataclass("Spy", [], bases=(type(inside),), frozen=True, namespace={"select": watched})
        values = {field.name: getattr(inside, field.name) for field in dataclasses.fields(inside) if field.init}
        rounds = []
        for options in ({}, {"reuse": Reuse()}):
            with pruned(spy(**values), built(), **options):
                for question in (1, 2):
                    asked.clear()
                    built()(**questions([question]), past_key_values=DynamicCache())
                    rounds.append(list(asked))
        assert rounds[:2] == rounds[2:]
        assert rounds[3]

    def test_a_class_that_says_nothing_is_taken_to_depend_on_it(self):
        @dataclasses.dataclass(frozen=True)
        class Own(InLLM):
            def select(self, state):
                return state.groups.valid

        assert Own().depends_on_question

    @pytest.mark.parametrize("options", [{}, {"pivots_text": 1}, {"pivots_text": 0, "criterion": "random"}])
    def test_dart_depends_on_it_through_text_pivots_attention_and_seeds(self, options):
        assert DART(**options).depends_on_question
        assert not DART(pivots_text=0).depends_on_question


class TestWhatIsShared:
    def test_a_warm_question_computes_its_own_tokens_only(self):
        with NoReduction()(built(), reuse=Reuse()) as pruning:
            for question in (1, 2):
                tiny.generate(built(), questions([question]), 1)
        cold, warm = pruning.reports
        assert warm.reused == [WORDS_BEFORE + N_PATCHES]
        # 5 + 16 tokens are stored, 6 are computed: attention of token n costs in proportion to n.
        size = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
        assert warm.flops_computed == [N_LAYERS * (6 * size + 2 * 2 * 64 * sum(range(22, 28)))]
        assert cold.flops_computed == cold.flops_exact
        assert "21 tokens from stored prefixes" in warm.line()

    def test_vision_tower_and_prefix_run_once_per_image(self):
        model, calls = built(), []
        handle = model.model.vision_tower.register_forward_hook(lambda *given: calls.append(given[1][0].shape[0]))
        try:
            with FastV(keep=8)(model, reuse=Reuse()):
                for batch in (*FOUR, *ONE):
                    tiny.generate(model, batch, 1)
        finally:
            handle.remove()
        assert calls == [2]

    def test_methods_that_cut_at_the_same_layer_share_prefixes(self):
        reuse = Reuse()
        for method in (DART(keep=8), FastV(keep=8), DART(keep=4)):
            with method(built(), reuse=reuse):
                tiny.generate(built(), ONE[0], 1)
        assert reuse.statistics()[PREFIX] == {"hits": 2, "misses": 1}

    def test_stored_choices_belong_to_their_options(self):
        reuse = Reuse()
        for keep in (8, 4):
            with DART(keep=keep, pivots_text=0)(built(), reuse=reuse) as pruning:
                tiny.generate(built(), ONE[0], 1)
                with_reuse = pruning.last.indices[0][0].tolist()
            with DART(keep=keep, pivots_text=0)(built()) as pruning:
                tiny.generate(built(), ONE[0], 1)
            assert pruning.last.indices[0][0].tolist() == with_reuse
        assert reuse.statistics()[PREFIX] == {"hits": 0, "misses": 2}

    def test_two_models_share_nothing(self):
        other, reuse = tiny.build("llava-qwen2"), Reuse()
        for model in (built(), other):
            with NoReduction()(model, reuse=reuse):
                tiny.generate(model, ONE[0], 1)
        assert reuse.statistics()[PREFIX] == {"hits": 0, "misses": 2}

    def test_images_that_differ_by_one_pixel_share_nothing(self):
        reuse, batch = Reuse(), questions([1])
        other = {**batch, "pixel_values": batch["pixel_values"].clone()}
        other["pixel_values"][0, 0, 0, 0] += 1e-3
        with NoReduction()(built(), reuse=reuse):
            for each in (batch, other):
                tiny.generate(built(), each, 1)
        assert [reuse.statistics()[kind]["hits"] for kind in ("features", "prefix")] == [0, 0]

    def test_other_words_or_positions_before_the_image_share_no_prefix(self):
        reuse, batch = Reuse(), questions([1])
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][0, 0] = 11
        shifted = {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None] + 3}
        with NoReduction()(built(), reuse=reuse):
            for each in (batch, other, shifted):
                tiny.generate(built(), each, 1)
        assert reuse.statistics()[PREFIX] == {"hits": 0, "misses": 3}
        assert reuse.statistics()["features"] == {"hits": 2, "misses": 1}


class TestLimits:
    @pytest.mark.parametrize("limit", [0, 3000, 20000])
    @pytest.mark.parametrize("name", ["none", "dart", "divprune"])
    def test_a_limit_too_small_works_without_and_says_so(self, name, limit):
        reuse = Reuse(bytes=limit)
        with create(name)(built(), reuse=reuse):
            found = [tiny.generate(built(), each, N_NEW) for each in FOUR]
        assert all(map(same, found, plain(name, "four")[0]))
        statistics = reuse.statistics()
        assert statistics["bytes"] <= limit
        if limit < 20000:
            assert any("Give a larger limit" in note for note in reuse.notes)

    def test_evicted_images_are_computed_again(self):
        with NoReduction()(built(), reuse=Reuse()) as pruning:
            tiny.generate(built(), questions([1]), 1)
            one_image = pruning.reuse.statistics()["bytes"]
        reuse = Reuse(bytes=one_image)
        with NoReduction()(built(), reuse=reuse):
            for image in (0, 1, 0):
                tiny.generate(built(), questions([1], [image]), 1)
        assert reuse.statistics()[PREFIX] == {"hits": 0, "misses": 3}
        assert reuse.statistics()["evictions"] > 0
        assert reuse.statistics()["bytes"] <= one_image

    def test_nothing_is_reused_while_gradients_are_recorded(self):
        reuse = Reuse()
        with torch.enable_grad(), NoReduction()(built(), reuse=reuse):
            built()(**questions([1]), past_key_values=DynamicCache()).logits.sum().backward()
        built().zero_grad()
        assert reuse.statistics()["bytes"] == 0

    def test_a_long_prompt_without_image_beside_them_leaves_nothing_to_share(self):
        batch = questions([1, 2], [0, None])
        text = torch.randint(10, 90, (1, batch["input_ids"].shape[1] - 1))
        batch["input_ids"][1, 1:], batch["attention_mask"][1, 1:] = text, 1
        with NoReduction()(built()):
            expected = tiny.generate(built(), batch, N_NEW)
        with NoReduction()(built(), reuse=Reuse()) as pruning:
            assert same(tiny.generate(built(), batch, N_NEW), expected)
        assert pruning.last.reused == [0, 0]


class TestOtherWaysToRun:
    @pytest.mark.parametrize("name", ["none", "dart", "dart-visual-pivots", "fastv", "pyramiddrop", "uniform"])
    def test_with_eager_attention(self, name):
        model = built("eager")
        with create(name)(model):
            expected = [tiny.generate(model, each, N_NEW) for each in FOUR]
        with create(name)(model, reuse=Reuse()):
            assert all(same(tiny.generate(model, each, N_NEW), one) for each, one in zip(FOUR, expected, strict=True))

    @pytest.mark.parametrize("name", ["none", "dart", "dart-visual-pivots", "uniform"])
    def test_with_a_static_cache(self, name):
        def run(each):
            return tiny.generate(built(), each, N_NEW, cache_implementation="static", disable_compile=True)

        with create(name)(built()):
            expected = [run(each) for each in FOUR]
        with create(name)(built(), reuse=Reuse()) as pruning:
            assert all(same(run(each), one) for each, one in zip(FOUR, expected, strict=True))
        assert any(pruning.last.reused)

    @pytest.mark.parametrize("name", ["none", "dart", "uniform"])
    def test_with_beams(self, name):
        options = {"num_beams": 3, "max_new_tokens": N_NEW, "do_sample": False}
        with create(name)(built()):
            expected = [built().generate(**each, **options) for each in FOUR]
        with create(name)(built(), reuse=Reuse()) as pruning:
            found = [built().generate(**each, **options) for each in FOUR]
        assert all(map(torch.equal, found, expected))
        assert any(pruning.last.reused)

    @pytest.mark.parametrize("name", ["none", "dart", "uniform"])
    def test_with_prompt_lookup(self, name):
        options = {"prompt_lookup_num_tokens": 2, "max_new_tokens": N_NEW, "do_sample": False}
        with create(name)(built()):
            expected = [built().generate(**each, **options) for each in ONE]
        with create(name)(built(), reuse=Reuse()) as pruning:
            found = [built().generate(**each, **options) for each in ONE]
        assert all(map(torch.equal, found, expected))
        assert any(pruning.last.reused)

    def test_tokens_hidden_before_the_image_end_are_not_taken_from_the_store(self):
        batch = questions([1])
        hidden = {**batch, "attention_mask": batch["attention_mask"].clone()}
        hidden["attention_mask"][0, 2] = 0
        with NoReduction()(built()):
            expected = tiny.generate(built(), hidden, N_NEW)
        with NoReduction()(built(), reuse=Reuse()) as pruning:
            tiny.generate(built(), batch, N_NEW)
            assert same(tiny.generate(built(), hidden, N_NEW), expected)
        assert pruning.last.reused == [0]

    def test_in_inference_mode_and_afterwards_without(self):
        reuse, expected = Reuse(), plain("dart", "one")[0][1]
        with DART(keep=8)(built(), reuse=reuse):
            with torch.inference_mode():
                tiny.generate(built(), ONE[0], N_NEW)
            assert same(tiny.generate(built(), ONE[1], N_NEW), expected)
        assert reuse.statistics()[PREFIX]["hits"] == 1

    @pytest.mark.parametrize("name", ["none", "dart", "dart-visual-pivots", "uniform"])
    def test_a_second_turn_shares_the_image(self, name):
        first = questions([1])
        longer = torch.cat([first["input_ids"], questions([2])["input_ids"][:, -6:]], dim=1)
        second = {**first, "input_ids": longer, "attention_mask": torch.ones_like(longer)}
        with create(name)(built()):
            expected = tiny.generate(built(), second, N_NEW)
        with create(name)(built(), reuse=Reuse()) as pruning:
            tiny.generate(built(), first, N_NEW)
            assert same(tiny.generate(built(), second, N_NEW), expected)
        assert pruning.last.reused[0] > 0

    def test_the_model_is_as_it_was_afterwards(self):
        before = tiny.generate(built(), ONE[0], N_NEW)
        with Pruning(DART(keep=8), built(), reuse=Reuse()):
            tiny.generate(built(), ONE[0], N_NEW)
        assert all("forward" not in vars(module) for module in built().modules())
        assert "get_image_features" not in vars(built().model)
        assert same(tiny.generate(built(), ONE[0], N_NEW), before)
