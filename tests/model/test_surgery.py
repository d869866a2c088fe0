"""The surgery beyond plain generation: turns, beams, interleaving, other cuts, compiled decoding, and its refusals."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import transformers
from transformers import DynamicCache

from llava.errors import BadInput, UnsupportedModel
from llava.model.pruning import AlreadyPruned
from llava.reduction import DART, InLLM, MustDrop, NoReduction, PyramidDrop, Random, SparseVLM
from tests import tiny
from tests.model.reference import alive_columns, masked, rearranged
from tests.tiny import IMAGE, N_LAYERS, error

TOLERANCE = 2e-5
METHOD = DART(keep=6, pivots_visual=2, pivots_text=2)
SEVERAL = (
    PyramidDrop(keep=6),
    SparseVLM(keep=6),
    MustDrop(vision=False, global_thr=0.1, individual_thr=0.2),
)


@pytest.fixture(scope="module")
def model():
    return tiny.build()


@pytest.fixture
def batch():
    return tiny.inputs()


@pytest.fixture
def single(batch):
    return tiny.alone(batch)[1]


def new_cache(model):
    return DynamicCache(config=model.config.get_text_config())


class TestGenerationModes:
    def test_second_turn_continues_on_the_pruned_cache(self, model, single):
        with METHOD(model) as pruning:
            cache = new_cache(model)
            first = tiny.generate(model, single, past_key_values=cache).sequences
            turn = torch.cat([first, torch.tensor([[11, 12, 13, 14]])], dim=1)
            second = tiny.generate(
                model, {"input_ids": turn, "attention_mask": torch.ones_like(turn)}, past_key_values=cache
            )
            assert len(pruning.reports) == 1
        alive = alive_columns(single, pruning.last.indices)
        whole = {**single, "input_ids": second.sequences, "attention_mask": torch.ones_like(second.sequences)}
        with masked(model, {METHOD.layer: alive}, single["attention_mask"]):
            teacher = model(**whole, use_cache=False).logits
        for step, logits in enumerate(second.logits):
            assert error(logits, teacher[:, turn.shape[1] - 1 + step]) < TOLERANCE

    @pytest.mark.parametrize("method", SEVERAL, ids=lambda method: method.name)
    def test_second_turn_after_several_cuts(self, model, single, method):
        """Positions counted anew, merged tokens and a cut cache, as the state on the cache says."""
        with method(model):
            cache = new_cache(model)
            first = tiny.generate(model, single, past_key_values=cache, bad_words_ids=[[IMAGE]]).sequences
            turn = torch.cat([first, torch.tensor([[11, 12, 13, 14]])], dim=1)
            more = {"input_ids": turn, "attention_mask": torch.ones_like(turn)}
            second = tiny.generate(model, more, past_key_values=cache, bad_words_ids=[[IMAGE]])
        whole = {**single, "input_ids": second.sequences, "attention_mask": torch.ones_like(second.sequences)}
        with rearranged(model, cache.llava_prompt_state, single["attention_mask"], renumber=True):
            teacher = model(**whole, use_cache=False).logits
        for step, logits in enumerate(second.logits):
            assert error(logits, teacher[:, turn.shape[1] - 1 + step]) < TOLERANCE

    @pytest.mark.parametrize("method", SEVERAL, ids=lambda method: method.name)
    def test_beams_and_prompt_lookup_after_several_cuts(self, model, single, method):
        with method(model):
            greedy = tiny.generate(model, single, 6).sequences
            assert torch.equal(tiny.generate(model, single, 6, prompt_lookup_num_tokens=3).sequences, greedy)
            twice = {name: torch.cat([value, value]) for name, value in single.items()}
            beams = tiny.generate(model, twice, 4, num_beams=2).sequences
        assert torch.equal(beams[0], beams[1])

    def test_two_generations_may_interleave(self, model, batch):
        with METHOD(model):
            samples = tiny.alone(batch)[:2]
            apart = [tiny.generate(model, sample, 4).sequences[0, -4:].tolist() for sample in samples]
            caches = [new_cache(model) for _ in samples]
            outputs = [model(**sample, past_key_values=cache) for sample, cache in zip(samples, caches, strict=True)]
            mixed = [[], []]
            for step in range(4):
                for row, (sample, cache) in enumerate(zip(samples, caches, strict=True)):
                    token = outputs[row].logits[:, -1].argmax(-1, keepdim=True)
                    mixed[row].append(int(token))
                    position = torch.tensor([[sample["input_ids"].shape[1] + step]])
                    outputs[row] = model(input_ids=token, past_key_values=cache, position_ids=position)
        assert mixed == apart

    def test_generations_without_cache_may_interleave(self, model, batch):
        with METHOD(model):
            samples = tiny.alone(batch)[:2]
            apart = [tiny.generate(model, sample, 3).sequences for sample in samples]
            ids = [sample["input_ids"] for sample in samples]
            for _ in range(3):
                for row, sample in enumerate(samples):
                    logits = model(input_ids=ids[row], pixel_values=sample["pixel_values"], use_cache=False).logits
                    ids[row] = torch.cat([ids[row], logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        assert all(torch.equal(a, b) for a, b in zip(apart, ids, strict=True))

    def test_beam_scores_equal_teacher_forcing(self, model, batch):
        single = tiny.alone(batch)[0]  # one image: transformers 5.17 mixes up several when it expands for beams
        n_new, n_prompt = 5, single["input_ids"].shape[1]
        with METHOD(model) as pruning:
            beams = model.generate(
                **single,
                num_beams=3,
                num_return_sequences=3,
                max_new_tokens=n_new,
                min_new_tokens=n_new,
                do_sample=False,
                eos_token_id=None,
                output_scores=True,
                return_dict_in_generate=True,
            )
        alive = alive_columns(single, pruning.last.indices[:1])  # all beams keep the same
        for sequence, score in zip(beams.sequences, beams.sequences_scores, strict=True):
            with masked(model, {METHOD.layer: alive}, single["attention_mask"]):
                whole = {**single, "input_ids": sequence[None], "attention_mask": torch.ones_like(sequence[None])}
                logits = model(**whole, use_cache=False).logits[0, n_prompt - 1 : -1].log_softmax(-1)
            log_probability = logits.gather(1, sequence[n_prompt:, None]).mean()
            assert abs(float(log_probability - score)) < 1e-4

    def test_batched_beams_and_prompt_lookup(self, model, batch, single):
        with METHOD(model):
            greedy = tiny.generate(model, single, 8).sequences
            looked_up = tiny.generate(model, single, 8, prompt_lookup_num_tokens=3).sequences
            beams = tiny.generate(model, batch, 4, num_beams=2).sequences
        assert torch.equal(looked_up, greedy)
        assert len(beams) == len(batch["input_ids"])

    def test_a_static_cache_can_be_reset_and_used_again(self, model, batch):
        one, two = tiny.alone(batch)[:2]
        with METHOD(model):
            fresh = tiny.generate(model, one).sequences
            cache = tiny.static_cache(model, two["input_ids"].shape[1] + 5)
            tiny.generate(model, two, past_key_values=cache)
            cache.reset()
            assert torch.equal(tiny.generate(model, one, past_key_values=cache).sequences, fresh)

    def test_right_padding_in_a_bare_forward(self, model, batch):
        one, two = tiny.alone(batch)[:2]
        longest = two["input_ids"].shape[1]
        pad = longest - one["input_ids"].shape[1]
        ids = torch.cat([torch.nn.functional.pad(one["input_ids"], (0, pad)), two["input_ids"]])
        mask = torch.cat([torch.nn.functional.pad(one["attention_mask"], (0, pad)), two["attention_mask"]])
        with METHOD(model):
            apart = [model(**sample).logits[0, -1] for sample in (one, two)]
            pixels = torch.cat([one["pixel_values"], two["pixel_values"]])
            together = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits[:, -1]
        assert max(error(a, b) for a, b in zip(apart, together, strict=True)) < TOLERANCE

    @pytest.mark.parametrize("method", [METHOD, PyramidDrop(keep=6)], ids=["one cut", "several, renumbered"])
    def test_compiled_decoding_is_one_graph_without_breaks(self, model, batch, method):
        torch._dynamo.reset()
        with method(model):
            prompt = tiny.alone(batch)[1]
            n_columns = prompt["input_ids"].shape[1]
            cache = tiny.static_cache(model, n_columns + 6)
            plain = tiny.generate(model, prompt, 6).sequences[0, n_columns:]
            token = model(**prompt, past_key_values=cache).logits[:, -1].argmax(-1, keepdim=True)

            def step(ids, positions):
                return model(input_ids=ids, position_ids=positions, past_key_values=cache).logits[:, -1]

            compiled = torch.compile(step, backend="eager", fullgraph=True, dynamic=False)
            tokens = [token]
            torch._dynamo.utils.counters.clear()
            for number in range(5):
                logits = compiled(tokens[-1], torch.tensor([[n_columns + number]]))
                tokens.append(logits.argmax(-1, keepdim=True))
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch._dynamo.reset()
        assert torch.cat(tokens, dim=1)[0].tolist() == plain.tolist()
        assert graphs == 1


@dataclass(frozen=True)
class TwoCuts(InLLM):
    """Half of the tokens before layer 1, half of those before layer 3; no plan, so the host asks the device."""

    needs: ClassVar[frozenset[str]] = frozenset({"keys"})

    @property
    def layers(self):
        return (1, 3)

    def select(self, state):
        n_visual = torch.tensor(state.groups.n_visual)[:, None]
        assert torch.equal(state.groups.valid.sum(1, keepdim=True), n_visual)
        assert state.keys.shape[:2] == state.hidden.shape[:2]
        rank = state.groups.valid.cumsum(1) - 1
        return state.groups.valid & (rank % 2 == 0)


class TestOtherCuts:
    def test_two_cuts_equal_the_masked_run(self, model, batch):
        with TwoCuts()(model) as pruning:
            generated = tiny.generate(model, batch)
            uncached = tiny.generate(model, batch, use_cache=False)
        report = pruning.last
        assert report.cut_layers == [1, 3]
        assert report.kept == [[8, 24, 0], [4, 12, 0]]
        assert report.mean_over_layers[0] == (16 + 8 + 8 + 4 + 4 + 4) / N_LAYERS
        first = [[torch.arange(0, 16, 2) for _ in images] for images in report.indices]
        second = [[torch.arange(0, 16, 4) for _ in images] for images in report.indices]
        whole = {**batch, "input_ids": generated.sequences[:, :-1]}
        new = torch.ones_like(generated.sequences[:, batch["input_ids"].shape[1] : -1])
        whole["attention_mask"] = torch.cat([batch["attention_mask"], new], dim=1)
        hidden_from = {1: alive_columns(batch, first), 3: alive_columns(batch, second)}
        with masked(model, hidden_from, batch["attention_mask"]):
            teacher = model(**whole, use_cache=False).logits
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, batch["input_ids"].shape[1] - 1 + step]) < TOLERANCE
            assert error(logits, uncached.logits[step]) < TOLERANCE

    @pytest.mark.parametrize("layer", [1, N_LAYERS - 1])
    @pytest.mark.parametrize("method", [DART, Random])
    def test_first_and_last_possible_layer(self, model, batch, method, layer):
        cache = new_cache(model)
        with method(keep=8, layer=layer)(model) as pruning:
            model(**batch, past_key_values=cache)
        n_columns = batch["input_ids"].shape[1]
        lengths = [entry.get_seq_length() for entry in cache.layers]
        assert lengths[:layer] == [n_columns] * layer
        assert all(length < n_columns for length in lengths[layer:])
        assert pruning.last.cut_layers == [layer]

    def test_images_may_compete_together(self, model, batch):
        with DART(keep=4, pivots_visual=2, pivots_text=2, images="together")(model) as pruning:
            model(**batch)
        assert pruning.last.final == [2 + 4 * 1, 2 + 4 * 3, 0]  # budgets add up over the images, pivots do not
        with Random(keep=4, count="int", images="together")(model) as pruning:
            model(**batch)
        assert pruning.last.final == [4, 12, 0]

    @pytest.mark.parametrize("criterion", ["k_norm_min", "v_norm_max", "attention_max", "attention_min", "random"])
    def test_every_criterion_batches(self, model, batch, criterion):
        method = DART(keep=6, pivots_visual=2, pivots_text=2, criterion=criterion, scoring="float32")
        with method(model) as pruning:
            together = tiny.generate(model, batch)
            kept = pruning.last.indices
            for row, sample in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, sample)
                assert all(torch.equal(a, b) for a, b in zip(pruning.last.indices[0], kept[row], strict=True))
                assert error(apart.logits[-1][0], together.logits[-1][row]) < TOLERANCE

    def test_image_at_the_very_end_has_no_text_pivots(self, model):
        batch = tiny.inputs(((6, IMAGE),))
        with DART(keep=8, pivots_visual=2, pivots_text=2)(model) as pruning:
            model(**batch)
        assert pruning.last.final == [2 + 2 * (8 // 4)]  # the quota counts all pivots, only two claim


class TestRefusals:
    def test_nested_and_double_application(self, model, batch):
        with METHOD(model) as outer:
            with pytest.raises(AlreadyPruned, match="already pruned by DART"), Random()(model):
                pass
            with pytest.raises(AlreadyPruned):
                outer.install()
            model(**batch)
        assert outer.last.cut_layers == [2]
        permanent = Random().apply(model)
        assert permanent.active
        permanent.remove()
        permanent.remove()
        assert not permanent.active

    @pytest.mark.parametrize("layer", [N_LAYERS, 99])
    def test_layer_outside_the_model(self, model, layer):
        with (
            pytest.raises(UnsupportedModel, match=f"layer={layer}.*from 1 to {N_LAYERS - 1}"),
            DART(layer=layer)(model),
        ):
            pass

    def test_unknown_kind_of_model(self):
        config = transformers.LlamaConfig(**{**tiny.TEXT, "num_hidden_layers": 1})
        with pytest.raises(UnsupportedModel, match="LlamaForCausalLM.*Supported model types: .*llava"):
            DART()(transformers.LlamaForCausalLM(config))

    def test_embeddings_alone(self, model, single):
        embeds = model.get_input_embeddings()(single["input_ids"])
        with METHOD(model), pytest.raises(BadInput, match="needs input_ids"):
            model.generate(inputs_embeds=embeds, max_new_tokens=2)
        with METHOD(model), pytest.raises(BadInput, match="not its language model by itself"):
            model.model.language_model(inputs_embeds=embeds)

    def test_prefill_in_chunks(self, model, single):
        with METHOD(model), pytest.raises(BadInput, match="prefill_chunk_size"):
            model.generate(**single, max_new_tokens=2, prefill_chunk_size=16)

    def test_labels_and_positions_of_logits(self, model, single):
        with METHOD(model):
            with pytest.raises(BadInput, match="labels="):
                model(**single, labels=single["input_ids"])
            with pytest.raises(BadInput, match="logits_to_keep"):
                model(**single, logits_to_keep=torch.tensor([0, 3]))

    def test_new_image_in_a_later_turn(self, model, single):
        cache = new_cache(model)
        with METHOD(model):
            model(**single, past_key_values=cache)
            with pytest.raises(BadInput, match="Start a new cache"):
                model(**single, past_key_values=cache)

    def test_text_after_a_cache_filled_without_pruning(self, model, single):
        cache, plain = new_cache(model), new_cache(model)
        more = torch.tensor([[11, 12, 13]])
        for entry in (cache, plain):
            model(**single, past_key_values=entry)
        expected = model(input_ids=more, past_key_values=plain).logits
        with METHOD(model):
            assert torch.equal(model(input_ids=more, past_key_values=cache).logits, expected)

    def test_short_attention_windows(self, batch):
        model = tiny.build("llava-mistral", sliding_window=16)
        with METHOD(model), pytest.raises(UnsupportedModel, match="look back only 16"):
            model(**batch)
        wide = tiny.build("llava-mistral", sliding_window=500)
        with METHOD(wide) as pruning:
            tiny.generate(wide, batch)
        assert pruning.last.cut_layers == [METHOD.layer]

    def test_more_pivots_than_tokens(self, model, batch):
        with DART(pivots_visual=17)(model), pytest.raises(BadInput, match="pivots_visual=17.*16 visual tokens"):
            model(**batch)
        assert torch.equal(model(**batch).logits, model(**batch).logits)


@dataclass(frozen=True)
class WrongShape(InLLM):
    """Returns indices instead of a mask, a likely mistake in a method of one's own."""

    def select(self, state):
        return state.groups.columns


def test_what_a_method_returns_is_checked(model, batch):
    with WrongShape()(model), pytest.raises(BadInput, match="select returned torch.int64.*bool tensor of shape"):
        model(**batch)


def test_no_reduction_touches_nothing_but_counts(model, batch):
    with NoReduction()(model) as pruning:
        labelled = model(**batch, labels=batch["input_ids"])
    assert labelled.loss is not None
    assert pruning.last.visual == pruning.last.final == [16, 48, 0]
