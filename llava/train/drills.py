"""Exercises without looking, for training only: which letter stands before an option, and sums in words.

They teach in few steps what no image is needed for, so that pictures are left to teach seeing. Never part of an exam.
"""

from __future__ import annotations

import numpy as np

from .chinese import LETTER_CN, translate
from .letters import CORNERS, LETTER, LETTERS, lines
from .questions import Question, pick, random_code, yes_no
from .scenes import COLOR_NAMES, SHAPES, Scene, Window, sample_scene
from .signs import claimed
from .tokenizer import EXTRA_WORDS

KIND = "drill"
WORDS = tuple(EXTRA_WORDS.split())
BARE = 0.7  # share without the closing sentence: half as long, the same lesson


TURNS = 3
SIDE = 4  # patches of the window that goes with exercises: as good as no image


def sample_drills(rng: np.random.Generator, number: int, canvas: int, patch: int) -> tuple[Scene, list[Question]]:
    """`number` exercises with a tiny window that shows nothing."""
    row, column = (int(v) for v in rng.integers(0, canvas // patch - SIDE + 1, 2))
    scene = sample_scene(
        rng, canvas=canvas, patch=patch, window=Window(row, column, SIDE), names=[], radius=(patch, patch)
    )
    asked: dict[str, Question] = {}
    while len(asked) < number:
        asker = pick(rng, (lookup, lookup, lookup, lookup, recite, addition, addition, sum_is))
        asked |= {q.text: q for q in asker(scene, rng)}
    return scene, list(asked.values())


def lookup(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Which option is red? A. blue, B. red ..."""
    chinese = rng.random() < 0.3
    roll, number = rng.random(), int(rng.integers(2, 5))
    if roll < 0.4:
        pool = pick(rng, (COLOR_NAMES, COLOR_NAMES, SHAPES, CORNERS))
    elif roll < 0.65:
        pool = [f"{pick(rng, COLOR_NAMES)} {pick(rng, SHAPES)}" for _ in range(number + 2)]
    elif roll < 0.75:  # any words: what is learned is to find, not which colours there are
        pool = [pick(rng, WORDS) for _ in range(number + 2)]
    elif roll < 0.85:
        pool = [str(n) for n in rng.permutation(19)]
    else:
        pool = [random_code(rng, int(rng.integers(2, 4))) for _ in range(number + 1)]
    pool = list(dict.fromkeys(pool))
    options = [pool[i] for i in rng.permutation(len(pool))[:number]]
    right = pick(rng, options)
    ending = "" if rng.random() < BARE else LETTER_CN if chinese else LETTER
    # More turns make each list teach several times; any option may come again, so that none can be told by exclusion.
    again = [pick(rng, options) for _ in range(TURNS)]
    follow = tuple((_which(o, chinese), LETTERS[options.index(o)]) for o in again)
    text = f"{_which(right, chinese)}\n{lines(options, chinese)}"
    return [Question(KIND, text, LETTERS[options.index(right)], ending, follow)]


def _which(option: str, chinese: bool) -> str:
    return f"哪个选项是{translate(option)}？" if chinese else f"Which option is {option}?"


def recite(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is option B? A. blue, B. red ..."""
    options = [COLOR_NAMES[i] for i in rng.permutation(len(COLOR_NAMES))[: int(rng.integers(2, 5))]]
    if rng.random() < 0.5:
        options = [f"{color} {pick(rng, SHAPES)}" for color in options]
    k = int(rng.integers(len(options)))
    return [Question(KIND, f"What is option {LETTERS[k]}?\n{lines(options, False)}", options[k], "")]


def addition(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is the result of the sum 3+4?"""
    a, b = (int(n) for n in rng.integers(0, 10, 2))
    return [Question(KIND, f"What is the result of the sum {a}+{b}?", str(a + b))]


def sum_is(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the answer to the sum 3+4 8? Wrong ones are one or two off."""
    a, b = (int(n) for n in rng.integers(0, 10, 2))
    said, true = claimed(a + b, rng)
    return [Question(KIND, f"Is the answer to the sum {a}+{b} {said}?", yes_no(true))]
