"""Questions as in VizWiz: some ask about what is not in the image and are to be answered `Unanswerable`."""

from __future__ import annotations

import numpy as np

from .questions import SHORT, Question, pick, unique
from .scenes import COLOR_NAMES, SHAPES, Scene

INSUFFICIENT = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
UNANSWERABLE = "Unanswerable"


def maybe_unanswerable(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Colour, shape or place of one thing, or the sign's text; about four in ten ask for what is not there."""
    roll, lacking = rng.random(), rng.random() < 0.4
    if roll < 0.25:
        if scene.sign is not None and "+" in scene.sign.text:
            return []
        answer = scene.sign.text if scene.sign else None
        return _question(pick(rng, ("What is written on the sign?", "What does the sign say?")), answer)
    if roll < 0.65:
        thing = _choose(scene, rng, "shape", SHAPES, lacking)
        return _question(f"What color is the {thing[0]}?", thing[1]) if thing else []
    thing = _choose(scene, rng, "color", COLOR_NAMES, lacking)
    return _question(f"What shape is the {thing[0]} object?", thing[1]) if thing else []


def _choose(scene: Scene, rng: np.random.Generator, key: str, values: tuple[str, ...], lacking: bool):
    """A value of `key` and the other attribute of the only thing that has it (None if nothing does)."""
    if lacking:
        absent = [v for v in values if all(getattr(t, key) != v for t in scene.things)]
        return (pick(rng, absent), None) if absent else None
    alone = unique(scene.things, lambda t: getattr(t, key))
    if not alone:
        return None
    thing = pick(rng, alone)
    return getattr(thing, key), thing.color if key == "shape" else thing.shape


def _question(text: str, answer: str | None) -> list[Question]:
    return [Question("unanswerable", text + INSUFFICIENT, answer or UNANSWERABLE, SHORT)]
