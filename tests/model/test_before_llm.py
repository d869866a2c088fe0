"""Shorter prompts: every way of generating, what comes back to the caller, other stages, refusals."""

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache, GenerationMixin, TextStreamer

from llava.errors import BadInput
from llava.reduction import BeforeLLM, DivPrune, InLLM, Kept, Pooling, Random, Uniform
from llava.reduction.chain import Chain
from tests import tiny
from tests.model.reference import alive_columns, masked
from tests.tiny import IMAGE, N_LAYERS, N_PATCHES, error

TOLERANCE = 2e-5
ORIGINAL, RENUMBERED = DivPrune(keep=8, positions="original"), DivPrune(keep=8)
BOTH = pytest.mark.parametrize("method", [ORIGINAL, RENUMBERED], ids=["original", "renumbered"])


@pytest.fixture(scope="module")
def model():
    return tiny.build("llava", "sdpa")


@pytest.fixture
def batch():
    return tiny.inputs()


@pytest.fixture
def single():
    return tiny.inputs(tiny.ONE)


def new_cache(model):
    return DynamicCache(config=model.config.get_text_config())


class TestWaysOfGenerating:
    @BOTH
    @pytest.mark.parametrize("samples", [tiny.MIXED, tiny.ONE], ids=["mixed", "one"])
    @pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
    def test_a_loop_of_ones_own_equals_generate(self, model, method, samples, static):
        """The loop counts by the whole prompt, as it would without pruning."""
        batch = tiny.inputs(samples)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        n_columns = ids.shape[1]
        with method(model):
            generated = tiny.generate(model, batch, 4)
            cache = tiny.static_cache(model, n_columns + 4) if static else new_cache(model)
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            logits = model(**batch, past_key_values=cache, position_ids=positions).logits[:, -1]
            for step in range(4):
                assert error(logits, generated.logits[step]) < TOLERANCE
                token = logits.argmax(-1, keepdim=True)
                mask = torch.cat([mask, torch.ones_like(token)], dim=1)
                position = positions[:, -1:] + 1 + step
                if step % 2 == 0 or len(ids) == 1:
                    given = {"attention_mask": mask, "position_ids": position}
                else:
                    given = {}  # what is left out is worked out
                logits = model(input_ids=token, past_key_values=cache, **given).logits[:, -1]

    @BOTH
    def test_second_turn_continues_on_the_cache(self, model, single, method):
        more = torch.tensor([[11, 12, 13, 14]])
        with method(model) as pruning:
            cache = new_cache(model)
            first = tiny.generate(model, single, 4, past_key_values=cache).sequences
            turn = torch.cat([first, more], dim=1)
            second = tiny.generate(
                model, {"input_ids": turn, "attention_mask": torch.ones_like(turn)}, 4, past_key_values=cache
            )
            again = tiny.generate(model, {"input_ids": turn, "pixel_values": single["pixel_values"]}, 4)
            assert len(pruning.reports) == 2
        assert torch.equal(second.sequences, again.sequences)
        assert torch.equal(second.sequences[:, : turn.shape[1]], turn)
        assert max(error(a, b) for a, b in zip(second.logits, again.logits, strict=True)) < TOLERANCE

    def test_only_the_new_tokens_of_a_turn(self, model, single):
        more = torch.tensor([[11, 12, 13]])
        with RENUMBERED(model):
            caches = [new_cache(model), new_cache(model)]
            turns = []
            for cache in caches:
                first = tiny.generate(model, single, 3, past_key_values=cache).sequences
                turns.append(torch.cat([first, more], dim=1))
            whole = tiny.generate(
                model, {"input_ids": turns[0], "attention_mask": torch.ones_like(turns[0])}, past_key_values=caches[0]
            )
            # The last token of the first answer is not in the cache yet.
            part = turns[1][:, -4:]
            rest = tiny.generate(
                model, {"input_ids": part, "attention_mask": torch.ones_like(turns[1])}, past_key_values=caches[1]
            )
        assert torch.equal(whole.sequences[:, turns[0].shape[1] :], rest.sequences[:, part.shape[1] :])

    def test_beams_and_several_answers(self, model, batch):
        n_columns = batch["input_ids"].shape[1]
        with RENUMBERED(model) as pruning:
            beams = tiny.generate(model, batch, 4, num_beams=3, num_return_sequences=2)
            assert torch.equal(beams.sequences[:, :n_columns], batch["input_ids"].repeat_interleave(2, dim=0))
            assert pruning.last.final == [8] * 3 + [24] * 3 + [0] * 3
            for row, alone in enumerate(tiny.alone(batch)):
                apart = tiny.generate(model, alone, 4, num_beams=3, num_return_sequences=2).sequences
                assert torch.equal(apart[:, -4:], beams.sequences[2 * row : 2 * row + 2, -4:])

    def test_prompt_lookup_equals_greedy(self, model, single):
        with RENUMBERED(model):
            greedy = tiny.generate(model, single, 8).sequences
            looked_up = tiny.generate(model, single, 8, prompt_lookup_num_tokens=3).sequences
        assert torch.equal(looked_up, greedy)

    def test_limits_on_the_whole_length_mean_the_callers_prompt(self, model, single):
        n_columns = single["input_ids"].shape[1]
        with RENUMBERED(model):
            sequences = model.generate(
                **single, max_length=n_columns + 3, min_length=n_columns + 3, do_sample=False, eos_token_id=None
            )
            config = copy.deepcopy(model.generation_config)
            config.max_length, config.do_sample, config.eos_token_id = n_columns + 2, False, None
            configured = model.generate(**single, generation_config=config)
        assert sequences.shape[1] == n_columns + 3
        assert configured.shape[1] == n_columns + 2
        assert torch.equal(configured, sequences[:, :-1])

    def test_ids_by_place_and_no_mask(self, model, single, batch):
        with RENUMBERED(model):
            expected = tiny.generate(model, single, 3).sequences
            bare = model.generate(
                single["input_ids"],
                pixel_values=single["pixel_values"],
                max_new_tokens=3,
                do_sample=False,
                eos_token_id=None,
            )
            padded = tiny.generate(model, batch, 3).sequences
            batch.pop("attention_mask")  # generate() takes the padding id for padding
            assert torch.equal(tiny.generate(model, batch, 3).sequences, padded)
        assert torch.equal(bare, expected)

    def test_streaming_without_the_prompt(self, model, single):
        class Tokenizer:
            def decode(self, ids, **_):
                return " ".join(str(int(token)) for token in torch.as_tensor(ids).flatten()) + "\n"

        class Notes(TextStreamer):
            def on_finalized_text(self, text, stream_end=False):
                heard.append(text.strip())

        heard = []
        with RENUMBERED(model):
            output = tiny.generate(model, single, 3, streamer=Notes(Tokenizer(), skip_prompt=True))
        assert [int(word) for line in heard for word in line.split()] == output.sequences[0, -3:].tolist()

    def test_a_static_cache_can_be_reset_and_used_again(self, model, batch):
        one, two = tiny.alone(batch)[:2]
        with RENUMBERED(model):
            fresh = tiny.generate(model, one).sequences
            cache = tiny.static_cache(model, two["input_ids"].shape[1] + 5)
            tiny.generate(model, two, past_key_values=cache)
            cache.reset()
            assert torch.equal(tiny.generate(model, one, past_key_values=cache).sequences, fresh)

    def test_two_generations_may_interleave(self, model, batch):
        samples = tiny.alone(batch)[:2]
        with RENUMBERED(model):
            apart = [tiny.generate(model, sample, 4).sequences[0, -4:].tolist() for sample in samples]
            caches = [new_cache(model) for _ in samples]
            outputs = [model(**sample, past_key_values=cache) for sample, cache in zip(samples, caches, strict=True)]
            mixed = [[], []]
            for _ in range(4):
                for row, cache in enumerate(caches):
                    token = outputs[row].logits[:, -1].argmax(-1, keepdim=True)
                    mixed[row].append(int(token))
                    outputs[row] = model(input_ids=token, past_key_values=cache)
        assert mixed == apart

    def test_right_padding_in_a_bare_forward(self, model, batch):
        one, two = tiny.alone(batch)[:2]
        pad = two["input_ids"].shape[1] - one["input_ids"].shape[1]
        ids = torch.cat([torch.nn.functional.pad(one["input_ids"], (0, pad)), two["input_ids"]])
        mask = torch.cat([torch.nn.functional.pad(one["attention_mask"], (0, pad)), two["attention_mask"]])
        with RENUMBERED(model):
            apart = [model(**sample).logits[0, -1] for sample in (one, two)]
            pixels = torch.cat([one["pixel_values"], two["pixel_values"]])
            together = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits[:, -1]
        assert max(error(a, b) for a, b in zip(apart, together, strict=True)) < TOLERANCE

    @pytest.mark.skipif(not hasattr(GenerationMixin, "_supports_mm_encoder_outputs"), reason="transformers is too old")
    def test_images_encoded_ahead(self, model, batch):
        output = model.model.get_image_features(batch["pixel_values"], return_dict=True)
        features = [feature.clone() for feature in output.pooler_output]
        encoded = {name: value for name, value in batch.items() if name != "pixel_values"}
        with RENUMBERED(model):
            expected = model(**batch).logits
            assert torch.equal(model(**encoded, mm_encoder_outputs={"image": output}).logits, expected)
        assert all(torch.equal(a, b) for a, b in zip(output.pooler_output, features, strict=True))

    def test_compiled_decoding_is_one_graph_without_breaks(self, model, batch):
        torch._dynamo.reset()
        with RENUMBERED(model):
            prompt = tiny.alone(batch)[1]
            n_columns = prompt["input_ids"].shape[1]
            plain = tiny.generate(model, prompt, 5).sequences[0, n_columns:]
            cache = tiny.static_cache(model, n_columns + 6)
            token = model(**prompt, past_key_values=cache).logits[:, -1].argmax(-1, keepdim=True)

            def step(ids, positions):
                return model(input_ids=ids, position_ids=positions, past_key_values=cache).logits[:, -1]

            compiled = torch.compile(step, backend="eager", fullgraph=True, dynamic=False)
            tokens = [token]
            torch._dynamo.utils.counters.clear()
            for number in range(4):
                logits = compiled(tokens[-1], torch.tensor([[n_columns + number]]))
                tokens.append(logits.argmax(-1, keepdim=True))
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch._dynamo.reset()
        assert torch.cat(tokens, dim=1)[0].tolist() == plain.tolist()
        assert graphs == 1


class TestPositionsAndValues:
    def test_means_at_original_positions_equal_a_prompt_made_by_hand(self, model, single):
        with Pooling(keep=4, positions="original")(model) as pruning:
            pruned = model(**single).logits
        assert pruning.last.indices[0][0].tolist() == [0, 2, 8, 10]
        features = model.model.get_image_features(single["pixel_values"], return_dict=True).pooler_output[0]
        features = torch.nn.functional.avg_pool2d(features.T.reshape(1, -1, 4, 4), 2).flatten(2)[0].T
        ids = single["input_ids"][0]
        first = int((ids == IMAGE).nonzero()[0])
        columns = torch.tensor(
            [*range(first), *(first + i for i in (0, 2, 8, 10)), *range(first + N_PATCHES, len(ids))]
        )
        by_hand = model(
            inputs_embeds=tiny.embedded(model, ids[None, columns], features),
            attention_mask=torch.ones(1, len(columns), dtype=torch.long),
            position_ids=columns[None],
        ).logits
        assert error(pruned, by_hand) < TOLERANCE

    def test_more_tokens_than_the_prompt_has_places(self, model, single):
        @dataclass(frozen=True)
        class Twice(BeforeLLM):
            name: ClassVar[str] = "twice"

            def n_kept(self, n_visual, n_tiles=1):
                return None

            def select_image(self, image):
                return Kept(values=image.features.repeat_interleave(2, dim=0))

        with Twice()(model) as pruning:
            pruned = model(**single).logits
        assert pruning.last.final == [2 * N_PATCHES]
        features = model.model.get_image_features(single["pixel_values"], return_dict=True).pooler_output[0]
        ids = single["input_ids"]
        ids = ids.repeat_interleave(torch.where(ids[0] == IMAGE, 2, 1), dim=1)
        embeds = tiny.embedded(model, ids, features.repeat_interleave(2, dim=0))
        assert error(pruned, model(inputs_embeds=embeds).logits) < TOLERANCE

    def test_text_alone_is_the_unpruned_model(self, model):
        batch = tiny.inputs(((9,), (4,)))
        expected = tiny.generate(model, batch)
        with RENUMBERED(model) as pruning:
            generated = tiny.generate(model, batch)
        assert torch.equal(generated.sequences, expected.sequences)
        assert pruning.last.final == [0, 0] and pruning.last.cut_layers == []


@dataclass(frozen=True)
class Marked(BeforeLLM, InLLM):
    """Before the model every second token goes on and some are marked; inside, the marked ones."""

    name: ClassVar[str] = "marked"
    keep: int = 8

    def select_image(self, image):
        indices = torch.arange(0, image.n_visual, 2)
        return Kept(indices, handed={"mark": indices % 4 == 0, "weight": indices.float()})

    def n_kept(self, n_visual, n_tiles=1):
        return n_visual // 2

    def select(self, state):
        assert state.handed["weight"].shape == state.groups.valid.shape
        return state.handed["mark"].bool() & state.groups.valid


class TestWithOtherStages:
    def test_scores_are_handed_on_to_the_cut_inside(self, model, batch):
        with Marked()(model) as pruning:
            generated = tiny.generate(model, batch, 3)
            beams = tiny.generate(model, batch, 3, num_beams=2)
        assert len(beams.sequences) == 3
        report = pruning.reports[0]
        assert report.cut_layers == [0, 2]
        assert report.kept == [[8, 24, 0], [4, 12, 0]]
        assert [offsets.tolist() for images in report.indices for offsets in images] == [[0, 4, 8, 12]] * 4
        assert report.mean_over_layers[0] == (2 * 8 + 4 * 4) / N_LAYERS
        for row, single in enumerate(tiny.alone(batch)):
            with Marked()(model):
                apart = tiny.generate(model, single, 3)
            assert error(apart.logits[-1][0], generated.logits[-1][row]) < TOLERANCE

    def test_a_chain_equals_the_full_run_that_hides_what_each_part_dropped(self, model, batch):
        chain = Chain(Uniform(keep=8, positions="original"), Random(keep=4, count="int"))
        with chain(model) as pruning:
            generated = tiny.generate(model, batch, 3)
        report = pruning.last
        assert report.cut_layers == [0, 2]
        assert report.kept == [[8, 24, 0], [4, 12, 0]]
        with Uniform(keep=8)(model) as alone:
            model(**batch)
        before, after = (alive_columns(batch, indices) for indices in (alone.last.indices, report.indices))
        whole = {**batch, "input_ids": generated.sequences[:, :-1]}
        new = torch.ones_like(generated.sequences[:, batch["input_ids"].shape[1] : -1])
        whole["attention_mask"] = torch.cat([batch["attention_mask"], new], dim=1)
        with masked(model, {0: before, 2: after}, batch["attention_mask"]):
            teacher = model(**whole, use_cache=False).logits
        for step, logits in enumerate(generated.logits):
            assert error(logits, teacher[:, batch["input_ids"].shape[1] - 1 + step]) < TOLERANCE


class TestRefusals:
    def test_labels_and_positions_of_logits(self, model, single):
        with RENUMBERED(model):
            with pytest.raises(BadInput, match="labels="):
                model(**single, labels=single["input_ids"])
            with pytest.raises(BadInput, match="logits_to_keep"):
                model(**single, logits_to_keep=torch.tensor([0, 3]))

    def test_prefill_in_chunks(self, model, single):
        with RENUMBERED(model), pytest.raises(BadInput, match="prefill_chunk_size"):
            model.generate(**single, max_new_tokens=2, prefill_chunk_size=16)

    def test_new_image_in_a_later_turn(self, model, single):
        for started_pruned in (True, False):
            cache = new_cache(model)
            if not started_pruned:
                model(**single, past_key_values=cache)
            with RENUMBERED(model):
                if started_pruned:
                    model(**single, past_key_values=cache)
                with pytest.raises(BadInput, match="Start a new cache"):
                    model(**single, past_key_values=cache)

    def test_images_and_places_that_do_not_fit(self, model, batch):
        with RENUMBERED(model):
            with pytest.raises(BadInput, match="images have 48 visual tokens, the prompts have places for 64"):
                model(**{**batch, "pixel_values": batch["pixel_values"][:3]})
            with pytest.raises(BadInput, match="images have 80 visual tokens"):
                model.generate(**{**batch, "pixel_values": batch["pixel_values"][[0, 1, 2, 3, 3]]})

    @pytest.mark.parametrize(
        ("returned", "complaint"),
        [
            (torch.arange(3), "select_image returned Tensor; it must return Kept"),
            (Kept(), "must return Kept"),
            (Kept(torch.ones(16, dtype=torch.bool)), r"indices of shape \(16,\), torch.bool"),
            (Kept(torch.arange(2), torch.zeros(3, 64)), "2 indices for 3 values"),
            (Kept(torch.arange(0)), "at least one token of every image"),
        ],
        ids=["tensor", "empty", "mask", "lengths", "nothing"],
    )
    def test_what_a_method_returns_is_checked(self, model, single, returned, complaint):
        @dataclass(frozen=True)
        class Wrong(BeforeLLM):
            keep: int = 4

            def select_image(self, image):
                return returned

        with Wrong()(model), pytest.raises(BadInput, match=complaint):
            model(**single)

    def test_merged_tokens_have_no_original_positions(self, model, single):
        @dataclass(frozen=True)
        class Merge(BeforeLLM):
            keep: int = 1

            def select_image(self, image):
                return Kept(values=image.features.mean(0, keepdim=True))

        with Merge()(model) as pruning:
            model(**single)
        assert pruning.last.final == [1]
        with (
            replace(Merge(), positions="original")(model),
            pytest.raises(BadInput, match="Give positions='renumbered'"),
        ):
            model(**single)
