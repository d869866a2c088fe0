"""Questions: answers agree with a second reading of the scene, and cannot be guessed."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from llava.train import questions as ask
from llava.train.examples import Difficulty, sample_example
from llava.train.scenes import SHAPES

LEVEL = Difficulty(side=24, things=6, sign=0.6, questions=20)


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(5)
    return [sample_example(rng, LEVEL, 336, 14) for _ in range(500)]


def test_existence_answers_agree_with_the_scene(examples):
    checked = 0
    for scene, asked in examples:
        for q in asked:
            match = re.fullmatch(r"Is there an? (\w+) (\w+) in the image\?", q.text)
            if q.kind == "existence" and match and match[2] in SHAPES:
                present = any((t.color, t.shape) == match.groups() for t in scene.things)
                assert q.answer == ("Yes" if present else "No"), q
                checked += 1
    assert checked > 200


def test_counts_agree_with_the_scene(examples):
    checked = 0
    for scene, asked in examples:
        for q in asked:
            match = re.fullmatch(r"How many (.+) are there in the image\?", q.text)
            if match:
                word = match[1].removesuffix(" objects").replace("crosses", "cross")
                word = word if word == "cross" or " objects" in match[1] else word.removesuffix("s")
                assert int(q.answer) == sum(word in (t.color, t.shape) for t in scene.things), q
                checked += 1
    assert checked > 200


def test_positions_agree_with_the_scene(examples):
    checked = 0
    for scene, asked in examples:
        for q in asked:
            match = re.fullmatch(r"Where is the (\w+) (\w+)\?", q.text)
            if match:
                (thing,) = [t for t in scene.things if (t.color, t.shape) == match.groups()]
                vertical, horizontal = q.answer.split()
                assert (thing.y < 168) == (vertical == "top") and (thing.x < 168) == (horizontal == "left")
                checked += 1
    assert checked > 100


def test_captions_name_everything(examples):
    for scene, asked in examples:
        for q in asked:
            if q.kind == "caption":
                assert q.answer.count(",") == len(scene.things) + bool(scene.sign) - 1
                assert all(t.name in q.answer for t in scene.things)


def test_yes_and_no_are_balanced_within_every_kind(examples):
    answers = defaultdict(Counter)
    for _, asked in examples:
        for q in asked:
            if q.answer in ("Yes", "No"):
                answers["sign" if q.text == "Is there a sign in the image?" else q.kind][q.answer] += 1
    for kind in ("existence", "position", "relation", "color", "ocr"):
        share = answers[kind]["Yes"] / sum(answers[kind].values())
        assert 0.35 < share < 0.65, (kind, answers[kind])


def test_hard_negatives_share_a_colour_or_a_shape_but_are_absent(examples):
    rng = np.random.default_rng(1)
    for scene, _ in examples[:200]:
        if scene.things:
            color, shape = ask.absent_name(scene, rng, hard=True).split()
            assert not any((t.color, t.shape) == (color, shape) for t in scene.things)
            assert any(t.color == color or t.shape == shape for t in scene.things)


def test_sums_are_right(examples):
    for scene, asked in examples:
        for q in asked:
            if q.text == "What is the result of the sum on the sign?":
                a, b = scene.sign.text.split("+")
                assert int(q.answer) == int(a) + int(b)
