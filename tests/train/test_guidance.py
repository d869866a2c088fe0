"""The guided head is told to look at the right option's words, and its loss is what attention weights give."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from llava.train import guidance
from llava.train.__main__ import ASSETS
from llava.train.data import Prompt, SceneBatches, Stage
from llava.train.examples import Difficulty
from llava.train.nano import Trainee, initial_model, nano_config

DRILLS = Stage("drills", 1, 2, Difficulty(8, 2), wide=True, drills=1.0, longest_drill=120)


@pytest.fixture(scope="module")
def prompt():
    return Prompt(AutoTokenizer.from_pretrained(str(ASSETS)))


def test_spans_are_the_options_words_and_the_token_behind(prompt):
    text = "\nWhich option is red?\nA. blue star\nB. red\nC. K7"
    ids = prompt.ids(f"{text} ASSISTANT:")
    spans = guidance.option_spans(text, lambda beginning: len(prompt.ids(beginning)))
    assert sorted(spans) == ["A", "B", "C"]
    said = {k: prompt.tokenizer.decode(ids[first : last - 1]).strip() for k, (first, last) in spans.items()}
    assert said == {"A": "blue star", "B": "red", "C": "K7"}


def test_every_look_predicts_a_letter_and_sees_what_was_asked_for(prompt):
    text = SceneBatches(prompt, DRILLS, 3, 0).batch(np.random.default_rng(4))["text"]
    assert len(text["looks"]) > 8
    checked = 0
    for image, block, at, first, last in text["looks"].tolist():
        ids = text["ids"][image, block]
        letter = prompt.tokenizer.decode([int(text["target"][image, block, at])]).strip()
        assert letter in "ABCD" and first < last <= at
        before = prompt.tokenizer.decode(ids[: at + 1]).rsplit("USER:")[-1]  # the turn that asks
        option = prompt.tokenizer.decode(ids[first : last - 1]).strip()
        assert option in before
        checked += f"{letter}. {option}" in prompt.tokenizer.decode(ids)
    assert checked == len(text["looks"])


def test_loss_is_the_share_of_attention_on_the_option():
    scores = torch.randn(2, 3, 2, 5, 4 + 5)
    guide = guidance.Guide()
    guide.looks = torch.tensor([[0, 1, 4, 1, 3], [1, 0, 3, 0, 2]])
    guide.listen(scores, n_shared=4)
    shares = scores.softmax(-1)[:, 0]
    expected = -(shares[0, 1, 4, 5:7].sum().log() + shares[1, 0, 3, 4:6].sum().log()) / 2
    torch.testing.assert_close(guide.loss, expected)


def test_the_guided_layer_learns_from_it(prompt):
    trainee = Trainee(initial_model(nano_config(prompt.tokenizer)))
    batch = SceneBatches(prompt, DRILLS, 3, 0).batch(np.random.default_rng(4))
    trainee.answers(trainee.features(batch["pixels"], batch["index"]), batch["index"], batch["text"])
    trainee.guide.loss.backward()
    layers = trainee.model.model.language_model.layers
    assert layers[guidance.LAYER].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert layers[-1].self_attn.q_proj.weight.grad is None
