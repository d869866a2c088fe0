"""The model in the package: loads everywhere, sees what is there, stays within its size."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration

import llava

FOLDER = Path(llava.__file__).parent / "assets" / "llava-nano"
POPE = Path(__file__).parents[1] / "playground" / "data" / "eval" / "pope" / "mini"


@pytest.fixture(scope="module")
def loaded():
    return llava.load()


def test_is_an_ordinary_small_llava_folder():
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 25e6
    model, info = LlavaForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.vision_feature_layer == -2 and model.config.text_config.num_hidden_layers >= 8
    assert model.config.image_seq_length == 576
    assert AutoTokenizer.from_pretrained(FOLDER).convert_tokens_to_ids("<image>") == model.config.image_token_id


def answers(loaded, questions, blank=False):
    model, processor = loaded
    images = [[Image.open(POPE / "val2014" / q["image"]).convert("RGB")] for q in questions]
    if blank:
        images = [[Image.new("RGB", image.size, (122, 116, 104))] for (image,) in images]
    inputs = processor([processor.prompt(q["text"]) for q in questions], images)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return processor.decode(output[:, inputs["input_ids"].shape[1] :])


def test_answers_from_the_image_and_not_from_the_question(loaded):
    rows = [json.loads(line) for line in (POPE / "llava_pope_test.jsonl").read_text().splitlines()]
    labels = [json.loads(line)["label"] for line in (POPE / "coco" / "coco_pope_random.json").read_text().splitlines()][
        :36
    ]
    questions = [row for row in rows if row["category"] == "random"][:36]
    right = sum(a.lower() == label for a, label in zip(answers(loaded, questions), labels, strict=True))
    assert right / len(labels) > 0.8
    blind = sum(a.lower() == label for a, label in zip(answers(loaded, questions, blank=True), labels, strict=True))
    assert blind / len(labels) < 0.7
