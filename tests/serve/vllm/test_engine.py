"""The plug-in inside vLLM, on the CPU in float32: answers equal this package's own path before the language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

import llava
from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry
from llava.serve.vllm import overrides
from tests.serve.vllm import engines

pytest.importorskip("vllm", reason="vLLM is not installed here: bash scripts/vllm_test.sh")

ROOT = Path(__file__).parents[3]
MINI = ROOT / "playground/data/eval/textvqa/mini"
KEEP, N_NEW, N_ASKED = 64, 6, 6
TOKEN = "<image>"


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Coarse noise: every patch is different."""
    noise = torch.randint(0, 256, (height // 7 + 1, width // 7 + 1, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy()).resize((width, height), Image.Resampling.NEAREST)


def own_answers(model, processor, method, prompts, pictures):
    """Token ids that the package's own path answers, from inputs made by transformers, as vLLM makes them."""
    found = []
    model.generation_config.eos_token_id = None
    with method(model) as pruning:
        for prompt, images in zip(prompts, pictures, strict=True):
            inputs = processor(text=prompt, images=images, return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=N_NEW, do_sample=False)
            n_whole = inputs["input_ids"].shape[1]
            found.append((n_whole - pruning.last.visual[0] + pruning.last.final[0], output[0, n_whole:].tolist()))
    return found


def check_of_one_size(llm, mark, size, model, processor, method):
    """Images of one size go through the vision tower together: each prompt has its own answer all the same."""
    one, two = picture(*size, 3), picture(*size, 4)
    prompts = [f"{mark}\nWhat is it?"] * 2 + [f"First {mark} then {mark}\nWhich?"] * 2
    pictures = [[one], [two], [one, two], [two, one]]
    due = own_answers(model, processor, method, prompts, pictures)
    assert len({tuple(answer) for _, answer in due}) == 4, "pictures and their order have to matter"
    requests = [
        (processor.tokenizer(prompt).input_ids, images) for prompt, images in zip(prompts, pictures, strict=True)
    ]
    outputs = engines.ask(llm, requests, N_NEW, ignore_eos=True)
    assert [(len(each.prompt_token_ids), list(each.outputs[0].token_ids)) for each in outputs] == due


# ---------------------------------------------------------------------------------------------- the embedded LLaVA-1.5


class TestEmbedded:
    """Real pictures and questions; engine and model are made once."""

    @pytest.fixture(scope="class")
    @classmethod
    def ours(cls):
        if not (EMBEDDED / "model.safetensors").is_file():
            pytest.skip("needs the embedded model")
        return llava.load(device="cpu", dtype="float32")

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls):
        """Questions about mini pictures, one of them cropped: it is padded to a square, not cut."""
        file = MINI / "TextVQA_0.5.1_val.json"
        if not file.is_file():
            pytest.skip(f"needs the mini benchmarks ({file})")
        rows = json.loads(file.read_text())["data"][:N_ASKED]
        images = [Image.open(MINI / f"train_images/{row['image_id']}.jpg").convert("RGB") for row in rows]
        found = [(row["question"], image) for row, image in zip(rows, images, strict=True)]
        question, image = found[0]
        return [*found, (question, image.crop((0, 60, image.width, image.height - 80)))]

    @pytest.fixture(scope="class")
    @classmethod
    def llm(cls):
        with engines.engine(EMBEDDED, **overrides("llava", "dart_features", keep=KEEP)) as llm:
            yield llm

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, ours, asked):
        """What the package's own path answers, one question at a time: ids of the short prompt's length, answer ids."""
        model, processor = ours
        found = []
        with registry.create("dart_features", keep=KEEP)(model) as pruning:
            for question, image in asked:
                inputs = processor([processor.prompt(question)], [[image]])
                output = model.generate(**inputs, max_new_tokens=N_NEW, do_sample=False)
                n_whole = inputs["input_ids"].shape[1]
                found.append((n_whole - pruning.last.visual[0] + pruning.last.final[0], output[0, n_whole:].tolist()))
        return found

    def requests(self, ours, asked):
        processor = ours[1]
        return [(processor.token_ids(processor.prompt(question), [1]), [image]) for question, image in asked]

    def test_concurrent_requests_get_the_answers_of_our_own_path(self, llm, ours, asked, answers):
        outputs = engines.ask(llm, self.requests(ours, asked), N_NEW)  # all at once
        assert [len(output.prompt_token_ids) for output in outputs] == [n_prompt for n_prompt, _ in answers]
        assert [list(output.outputs[0].token_ids) for output in outputs] == [ids for _, ids in answers]

    def test_one_question_about_two_pictures_of_one_size(self, llm, ours, asked, answers):
        """Prompts of one length, encoded together: each gets the answer about its own picture, in either order."""
        pairs = [(pair, due) for pair, due in zip(asked, answers, strict=True) if pair[0] == asked[0][0]]
        (first, due), (second, other) = pairs[0], pairs[1]
        assert first[1].size == second[1].size and due[0] == other[0] and due[1] != other[1]
        for order, expected in (((first, second), [due[1], other[1]]), ((second, first), [other[1], due[1]])):
            llm.reset_prefix_cache()
            outputs = engines.ask(llm, self.requests(ours, order), N_NEW)
            assert [list(output.outputs[0].token_ids) for output in outputs] == expected

    def test_the_cache_holds_only_the_short_prompt(self, llm, ours, asked, answers):
        request = self.requests(ours, asked)[1:2]
        llm.reset_prefix_cache()
        with engines.blocks_used(llm) as used:
            engines.ask(llm, request, N_NEW, ignore_eos=True)
        n_prompt = answers[1][0]
        assert n_prompt < len(request[0][0]) + KEEP  # one placeholder became 64
        assert max(used) == -(-(n_prompt + N_NEW - 1) // engines.BLOCK)  # the last token is never put there

    def test_another_question_about_a_known_image_starts_from_its_prefix(self, llm, ours, asked):
        model, processor = ours
        _, image = asked[0]
        question = "What colour is the sign?"
        output = engines.ask(llm, self.requests(ours, [(question, image)]), N_NEW)[0]
        assert output.num_cached_tokens >= engines.BLOCK
        with registry.create("dart_features", keep=KEEP)(model):
            inputs = processor([processor.prompt(question)], [[image]])
            own = model.generate(**inputs, max_new_tokens=N_NEW, do_sample=False)
        assert list(output.outputs[0].token_ids) == own[0, inputs["input_ids"].shape[1] :].tolist()

    def test_chat_requests_and_text_alone(self, llm, ours):
        from vllm import SamplingParams

        from llava.serve.vllm.chat import chat_template

        turns = [{"role": "user", "content": "Hello"}]
        outputs = llm.chat(
            turns, SamplingParams(max_tokens=2), chat_template=chat_template(ours[1].template), use_tqdm=False
        )
        due = ours[1].tokenizer(ours[1].template.render([("Hello", None)])).input_ids
        assert outputs[0].prompt_token_ids == due


# ------------------------------------------------------------------------------------ tiny random LLaVA-NeXT, Qwen2-VL


@pytest.mark.parametrize("name", ["visionzip"])
def test_methods_that_read_the_vision_tower(tmp_path_factory, name):
    folder = engines.write_llava(tmp_path_factory.getbasetemp() / f"llava-{name}")
    pictures = [[picture(28, 28, 0)], [picture(56, 56, 1), picture(84, 84, 2)]]
    method = registry.create(name, keep=3)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    prompts = [f"{TOKEN}\nWhat is it?", f"First {TOKEN} then {TOKEN}\nWhich?"]
    due = own_answers(model, processor, method, prompts, pictures)
    with engines.engine(folder, **overrides("llava", name, keep=3)) as llm:
        ids = [processor.tokenizer(prompt).input_ids for prompt in prompts]
        outputs = engines.ask(llm, list(zip(ids, pictures, strict=True)), N_NEW, ignore_eos=True)
    assert [(len(each.prompt_token_ids), list(each.outputs[0].token_ids)) for each in outputs] == due


@pytest.mark.parametrize("name", ["dart_features", "divprune"])
def test_llava_next_with_images_of_several_shapes(tmp_path_factory, name):
    folder = engines.write_llava(tmp_path_factory.getbasetemp() / f"next-{name}", tiled=True)
    pictures = [[picture(100, 60, 0)], [picture(60, 130, 1), picture(90, 90, 2)]]
    method = registry.create(name, keep=7)
    model = transformers.LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    prompts = [f"{TOKEN}\nWhat is it?", f"First {TOKEN} then {TOKEN}\nWhich?"]
    due = own_answers(model, processor, method, prompts, pictures)
    with engines.engine(folder, **overrides("llava_next", name, keep=7)) as llm:
        ids = [processor.tokenizer(prompt).input_ids for prompt in prompts]
        outputs = engines.ask(llm, list(zip(ids, pictures, strict=True)), N_NEW, ignore_eos=True)
        check_of_one_size(llm, TOKEN, (100, 60), model, processor, method)
    assert [(len(each.prompt_token_ids), list(each.outputs[0].token_ids)) for each in outputs] == due


@pytest.mark.parametrize("name", ["dart_features", "uniform"])
def test_qwen2_vl_with_the_positions_of_the_whole_images(tmp_path_factory, name):
    pytest.importorskip("torchvision", reason="transformers makes Qwen2-VL's inputs with torchvision")
    folder = engines.write_qwen2_vl(tmp_path_factory.getbasetemp() / f"qwen-{name}")
    pictures = [[picture(140, 112, 0)], [picture(84, 224, 1), picture(196, 84, 2)]]
    method = registry.create(name, keep=6)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    prompts = [f"{mark}What is it?", f"First {mark} then {mark} which?"]
    due = own_answers(model, processor, method, prompts, pictures)
    with engines.engine(folder, **overrides("qwen2_vl", name, keep=6)) as llm:
        ids = [processor.tokenizer(prompt).input_ids for prompt in prompts]
        requests = list(zip(ids, pictures, strict=True))
        outputs = engines.ask(llm, requests, N_NEW, ignore_eos=True)
        again = engines.ask(llm, requests, N_NEW, ignore_eos=True)
        check_of_one_size(llm, mark, (140, 112), model, processor, method)
    assert [(len(each.prompt_token_ids), list(each.outputs[0].token_ids)) for each in outputs] == due
    assert [each.outputs[0].token_ids for each in again] == [each.outputs[0].token_ids for each in outputs]
