"""The curriculum llava-nano was trained with: dense labels first, then windows that grow, full images at the end."""

from __future__ import annotations

from dataclasses import replace

from .data import Stage
from .examples import Difficulty

FULL = 24  # patches on a side of the whole image
LAST = Difficulty(side=FULL, things=7, radius=(17.0, 40.0))
COUNTING = replace(LAST, questions=10)

STAGES = [
    Stage("tower-10", 1100, 64, Difficulty(10, 3, (14, 26), sign=0.5), lr=2e-3, questions=False),
    Stage(
        "talk-11",
        2500,
        40,
        Difficulty(11, 3, (14, 28), sign=0.45, questions=6),
        lr=1.5e-3,
        tokens=64,
        short=0.3,
        longest=32,
    ),
    Stage("full-24", 120, 16, LAST, lr=1e-3, full_prompt=True, longest=48),
    Stage("full-24-jpeg", 170, 16, LAST, lr=8e-4, full_prompt=True, longest=48, chat=0.12, jpeg=0.6),
    Stage("full-24-counting", 210, 16, COUNTING, lr=9e-4, full_prompt=True, longest=40, jpeg=0.5),
]
# Continued from the weights of STAGES: the abilities of all benchmarks, in windows first (cheap), then on full images.
WIDE_WINDOW = Difficulty(12, 5, (13, 24), sign=0.5, characters=4, font_sizes=(30, 42), questions=9)
WIDE_FULL = Difficulty(FULL, 7, (17.0, 40.0), sign=0.5, characters=4, font_sizes=(38, 56), questions=10)
WIDE_12 = Stage(
    "wide-12",
    520,
    32,
    WIDE_WINDOW,
    lr=1.2e-3,
    tokens=80,
    longest=40,
    jpeg=0.3,
    wide=True,
    long=0.5,
    drills=0.2,
    clips=0.14,
)
WIDE_CHOICE = replace(WIDE_12, name="wide-choice", steps=560, long=0.42, drills=0.05, longest_drill=110, guide=0.5)
WIDE_MORE = replace(WIDE_CHOICE, name="wide-more", steps=700, long=0.4, drills=0.1, clips=0.1, emphasis="weak")
WIDE_24 = Stage(
    "wide-24",
    250,
    16,
    WIDE_FULL,
    lr=9e-4,
    full_prompt=True,
    longest=48,
    chat=0.05,
    short=0.7,
    jpeg=0.6,
    wide=True,
    long=0.45,
    clips=0.14,
    guide=0.3,
    emphasis="weak",
)
WIDE_24_COUNTS = replace(WIDE_24, name="wide-24-counts", steps=380, lr=6e-4, long=0.25, clips=0.08, emphasis="counts")
WIDE = [
    Stage("wide-letters", 200, 32, WIDE_WINDOW, lr=1.5e-3, tokens=80, longest=40, wide=True, long=0.5, drills=0.75),
    WIDE_12,
    # Which letter stands before an option: without images, with the head that looks for it guided.
    Stage("wide-lookup", 900, 4, WIDE_WINDOW, lr=2e-3, wide=True, drills=1.0, longest_drill=110, dense=0.0, guide=1.0),
    WIDE_CHOICE,
    WIDE_MORE,
    WIDE_24,
    # What was still falling: windows with more questions each, then full images.
    replace(WIDE_MORE, name="wide-again", steps=240, level=replace(WIDE_WINDOW, questions=14)),
    replace(WIDE_24, name="wide-24-again", steps=400),
    replace(WIDE_24, name="wide-24-basic", steps=150, lr=7e-4, long=0.3, clips=0.1, emphasis="basic", average=2),
    # The weights shipped: the first and the third of these were ended when their learning rate was low (at 279 and 462
    # steps), and the last mean also holds those of both stages before. The log tells which weights went into each mean.
    replace(WIDE_24_COUNTS, average=4),
    replace(WIDE_24_COUNTS, name="wide-24-counts-again", steps=165, lr=5e-4, average=2),
    replace(
        WIDE_24,
        name="wide-24-alike",
        steps=560,
        level=replace(WIDE_FULL, questions=14, alike=0.4),
        lr=7e-4,
        long=0.2,
        clips=0.06,
        emphasis="alike",
        average=4,
    ),
]
CURRICULA = {"first": STAGES, "wide": WIDE}
# What the last stage looks like without language: the measure of held-out accuracy.
EXAM = Stage("exam", 1, 8, LAST, full_prompt=True)
WIDE_EXAM = Stage("wide-exam", 1, 8, WIDE_FULL, full_prompt=True, wide=True, long=0.5, clips=0.1)
