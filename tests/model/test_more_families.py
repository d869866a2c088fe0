"""LLaVA-OneVision, InternVL, SmolVLM, Idefics 3 and Gemma 3 from their folders: prompts, tokens, images, refusals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import llava
from llava.errors import BadInput, CheckpointError, UnsupportedModel
from llava.model.families import family_of, onevision
from llava.reduction import DART
from tests.model.hf_folders import PREPROCESSORS, tokenizer, write_checkpoint

FAMILIES = sorted(PREPROCESSORS)
RANDOM = np.random.default_rng(0)
SIZES = [(12, 12), (40, 11), (9, 31)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: write_checkpoint(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def loaded(folders):
    return {family: llava.load(folder, device="cpu") for family, folder in folders.items()}


def image(width, height):
    return Image.fromarray(RANDOM.integers(0, 255, (height, width, 3), dtype=np.uint8))


def mixed(processor):
    prompts = [processor.prompt("Is there a circle?", 2), processor.prompt("no?", 0), processor.prompt("left?")]
    return processor(prompts, [[image(12, 12), image(40, 11)], [], [image(9, 31)]])


PROMPTS = {  # what the published chat templates make of one image and one question
    "llava_onevision": "<|im_start|>user <image>\nIs it red?<|im_end|><|im_start|>assistant\n",
    "internvl": "<|im_start|>user\n<image>\nIs it red?<|im_end|>\n<|im_start|>assistant\n",
    "smolvlm": "<|im_start|>User:<image>Is it red?<end_of_utterance>\nAssistant:",
    "idefics3": "<|im_start|>User:<image>Is it red?<end_of_utterance>\nAssistant:",
    "gemma3": "<bos><start_of_turn>user\n<image>Is it red?<end_of_turn>\n<start_of_turn>model\n",
}


@pytest.mark.parametrize("family", FAMILIES)
class TestEachFamily:
    def test_prompt_of_the_chat_template(self, loaded, family):
        assert loaded[family][1].prompt("Is it red?") == PROMPTS[family]

    def test_logits_are_those_of_plain_transformers(self, folders, loaded, family):
        model, processor = loaded[family]
        batch = mixed(processor)
        plain = transformers.AutoModelForImageTextToText.from_pretrained(folders[family]).eval()
        assert type(plain) is type(model)
        assert torch.equal(model(**batch).logits, plain(**batch).logits)

    def test_every_sample_alone_has_the_same_inputs(self, loaded, family):
        _, processor = loaded[family]
        pictures = [[image(*SIZES[0])], [], [image(*SIZES[1]), image(*SIZES[2])]]
        prompts = [processor.prompt("left?", len(own)) for own in pictures]
        together = processor(prompts, pictures)
        for row, (prompt, own) in enumerate(zip(prompts, pictures, strict=True)):
            ids = processor([prompt], [own])["input_ids"][0]
            assert together["input_ids"][row, -len(ids) :].tolist() == ids.tolist()
            assert int(together["attention_mask"][row].sum()) == len(ids)

    def test_dart_prunes_every_image(self, loaded, family):
        model, processor = loaded[family]
        with DART(keep=2, pivots_visual=1, pivots_text=1)(model) as pruning:
            output = model.generate(**mixed(processor), max_new_tokens=2, do_sample=False)
        assert [[len(kept) for kept in sample] for sample in pruning.last.indices] == [[3, 3], [], [3]]
        assert len(processor.decode(output)) == 3

    def test_a_tokenizer_of_something_else_is_refused(self, folders, tmp_path, family):
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in folders[family].iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        other = "gemma3" if family != "gemma3" else "internvl"
        tokenizer(other).save(str(broken / "tokenizer.json"))
        with pytest.raises(CheckpointError, match="it has no|entries"):
            llava.load(broken, device="cpu")

    def test_placeholders_in_a_question_are_refused(self, loaded, family):
        _, processor = loaded[family]
        with pytest.raises(BadInput):
            processor([processor.prompt(f"a {processor.placeholder} b", 0)])


class TestTokens:
    def test_gemma3_makes_what_transformers_own_processor_makes(self, folders, loaded):
        _, processor = loaded["gemma3"]
        own = transformers.AutoProcessor.from_pretrained(folders["gemma3"], image_seq_length=4)
        picture, prompt = image(40, 11), processor.prompt("Is it red?")
        ours = processor([prompt], [[picture]])
        text = prompt.removeprefix("<bos>").replace("<image>", "<start_of_image>")
        theirs = own(images=[picture], text=["<bos>" + text], return_tensors="pt", add_special_tokens=False)
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        assert torch.equal(ours["token_type_ids"], theirs["token_type_ids"])

    @pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 3), (2, 2)])
    def test_smolvlm_writes_tiles_as_transformers_does(self, loaded, rows, columns):
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        _, processor = loaded["smolvlm"]
        expected = get_image_prompt_string(rows, columns, 4, "<fake_token_around_image>", "<image>", "<global-img>")
        assert processor._text(rows, columns) == expected

    def test_smolvlm_images_are_the_union_of_their_tiles(self, loaded):
        model, processor = loaded["smolvlm"]
        batch = processor([processor.prompt("a", 2)], [[image(24, 24), image(24, 12)]])
        assert family_of(model).image_lengths(model, batch) == [4 * 5, 4 * 3]

    def test_onevision_counts_like_transformers(self, loaded):
        from transformers import LlavaOnevisionProcessor

        model, _ = loaded["llava_onevision"]
        theirs = SimpleNamespace(
            image_processor=SimpleNamespace(image_grid_pinpoints=model.config.image_grid_pinpoints),
            num_image_tokens=16,
            vision_aspect_ratio="anyres_max_9",
        )
        theirs._get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features.__get__(theirs)
        for size in RANDOM.integers(2, 200, (60, 2)).tolist():
            expected = LlavaOnevisionProcessor._get_number_of_features(theirs, *size, 12, 12)
            assert onevision.n_tokens(model.config, tuple(size), True) == expected
        assert onevision.n_tokens(model.config, (5, 9), False) == 17

    def test_onevision_shrinks_maps_that_are_too_large(self, loaded):
        model, _ = loaded["llava_onevision"]
        model.config.vision_aspect_ratio, before = "anyres_max_4", model.config.vision_aspect_ratio
        try:  # 12 x 12 tokens are (3 / 2)^2 of the four tiles allowed: 8 x 8 with 8 newlines remain
            assert onevision.n_tokens(model.config, (36, 36), True) == 16 + 8 * 9
            assert onevision.LlavaOnevision().newlines(
                model, {"image_sizes": torch.tensor([[36, 36]]), "batch_num_images": torch.tensor([1])}
            ) == [[16 + 8 + 9 * row for row in range(8)]]
        finally:
            model.config.vision_aspect_ratio = before


def test_gemma3_refuses_prompts_longer_than_its_window(loaded):
    model, processor = loaded["gemma3"]
    long = processor([processor.prompt("left " * 200)], [[image(12, 12)]])
    with DART(keep=2)(model), pytest.raises(UnsupportedModel, match="look back only 128"):
        model.generate(**long, max_new_tokens=1)
    model.generate(**long, max_new_tokens=1)
