"""Questions about the printed sign: its text, single characters, sums of two numbers."""

from __future__ import annotations

import numpy as np

from .questions import Question, near_miss, pick, yes_no
from .scenes import Scene

READ = (
    "What is written on the sign?",
    "what is written in the image?",
    "What is the text on the sign?",
    "What does the sign say?",
)
READ_NUMBER = ("What number is on the sign?", "what is the number in the image?")
ORDINALS = ("first", "second", "third")
LATEX = "Please write out the expression of the formula in the image using LaTeX format."


def text_of(scene: Scene) -> str:
    """What the sign says; empty without a sign."""
    return scene.sign.text if scene.sign else ""


def is_sum(scene: Scene) -> bool:
    return "+" in text_of(scene)


def total(scene: Scene) -> int:
    terms: list[int] = [int(part) for part in text_of(scene).split("+")]
    return sum(terms)


def read(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is written on the sign?"""
    if scene.sign is None:
        return []
    text = scene.sign.text
    if is_sum(scene):
        return [Question("reading", pick(rng, (LATEX, *READ)), text)]
    return [Question("reading", pick(rng, READ_NUMBER if text.isdigit() and rng.random() < 0.5 else READ), text)]


def spelled(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the text on the sign "K7"? Wrong ones differ by a character."""
    if scene.sign is None or is_sum(scene):
        return []
    yes, text = bool(rng.integers(2)), scene.sign.text
    return [Question("ocr", f'Is the text on the sign "{text if yes else near_miss(text, rng)}"?', yes_no(yes))]


def character(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is the second character on the sign? What is the last one?"""
    if scene.sign is None or is_sum(scene):
        return []
    text = scene.sign.text
    k = int(rng.integers(-1, min(len(text), len(ORDINALS))))
    return [Question("reading", f"What is the {'last' if k < 0 else ORDINALS[k]} character on the sign?", text[k])]


def result(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is the result of the sum on the sign?"""
    if not is_sum(scene):
        return []
    return [Question("calculation", "What is the result of the sum on the sign?", str(total(scene)))]


def result_is(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the answer to the sum on the sign 7? Wrong ones are one or two off."""
    if not is_sum(scene):
        return []
    said, true = claimed(total(scene), rng)
    return [Question("calculation", f"Is the answer to the sum on the sign {said}?", yes_no(true))]


def claimed(right: int, rng: np.random.Generator) -> tuple[int, bool]:
    """A number said to be the answer, and whether it is: `right` in half of the cases, else one or two off."""
    if bool(rng.integers(2)):
        return right, True
    return right + int(pick(rng, [d for d in (-2, -1, 1, 2) if right + d >= 0])), False


def term(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is the first number of the sum on the sign?"""
    if not is_sum(scene):
        return []
    k = int(rng.integers(2))
    text = f"What is the {ORDINALS[k]} number of the sum on the sign?"
    return [Question("reading", text, text_of(scene).split("+")[k])]
