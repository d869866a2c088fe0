"""Short clips with ground truth: a thing moves left or right, appears, or changes its colour; drawn frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from llava.model import framegrid
from llava.model.video import evenly

from .examples import random_name
from .questions import Question, pick, yes_no
from .scenes import COLOR_NAMES, Scene, Thing, Window, draw_scene, sample_scene

SIDE, PATCH = 224, 14  # frames as Video-LLaVA sees them
FRAMES, RATE = 16, 8
RADIUS = (18.0, 30.0)
SHIFT = 0.45  # of the frame's side, at least, that a moving thing travels
ACTIONS = ("move", "appear", "change")
APPEARS_SHAPE, APPEARS_COLOR = "what shape appears?", "what color is the object that appears?"
KIND, DETAIL = "video", "video (practice)"  # what the benchmarks ask, and what only training does


@dataclass(frozen=True)
class Clip:
    """A scene for each frame, what happens (one of ACTIONS), to which thing, and the answer to what is asked of it."""

    scenes: tuple[Scene, ...]
    action: str
    thing: Thing
    question: str
    answer: str

    def frames(self) -> list[Image.Image]:
        """RGB images (SIDE, SIDE)."""
        return [draw_scene(scene)[0] for scene in self.scenes]

    def grid(self, size: int) -> tuple[Image.Image, np.ndarray]:
        """The clip as models see it that take images only: a (size, size) picture of some frames, and what is shown.

        The second is int16 (size, size), 0 where only background is.
        """
        drawn = [draw_scene(self.scenes[i]) for i in evenly(len(self.scenes), framegrid.SIDE**2)]
        image = framegrid.grid_of([frame for frame, _ in drawn]).resize((size, size), Image.Resampling.BICUBIC)
        owners = np.stack([owner for _, owner in drawn]).reshape(framegrid.SIDE, framegrid.SIDE, SIDE, SIDE)
        owner = owners.transpose(0, 2, 1, 3).reshape(2 * [framegrid.SIDE * SIDE])
        nearest = np.arange(size) * len(owner) // size
        return image, owner[nearest][:, nearest]


def sample_clip(rng: np.random.Generator, action: str) -> Clip:
    """Draw a clip in which `action` happens to one thing, with one or two others that stand still."""
    while True:
        first = random_name(rng)
        others = [n for n in (random_name(rng) for _ in range(6)) if n[0] != first[0] and n[1] != first[1]]
        scene = sample_scene(
            rng,
            canvas=SIDE,
            patch=PATCH,
            window=Window(0, 0, SIDE // PATCH),
            # The acting thing is drawn last, so that the others look the same in every frame.
            names=[*others[: int(rng.integers(1, 3))], first],
            radius=RADIUS,
        )
        if len(scene.things) < 2 or (scene.things[-1].color, scene.things[-1].shape) != first:
            continue
        states = ACTORS[action](scene, rng)
        if states is None:
            continue
        things, question, answer = states
        still = scene.things[:-1]
        scenes = tuple(replace(scene, things=[*still, *([t] if t else [])]) for t in things)
        return Clip(scenes, action, scene.things[-1], question, answer)


States = tuple[list[Thing | None], str, str]


def _move(scene: Scene, rng: np.random.Generator) -> States | None:
    thing, direction = scene.things[-1], pick(rng, ("left", "right"))
    low, high = thing.radius + 2, SIDE - thing.radius - 2
    start = rng.uniform(low, high - SHIFT * SIDE)
    end = rng.uniform(start + SHIFT * SIDE, high)
    if direction == "left":
        start, end = end, start
    path = [replace(thing, x=float(x)) for x in np.linspace(start, end, FRAMES)]
    if any(_touch(t, other) for t in path for other in scene.things[:-1]):
        return None
    return list(path), f"which direction does the {thing.color} {thing.shape} move?", direction


def _touch(a: Thing, b: Thing) -> bool:
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < (a.radius + b.radius) ** 2


def _moment(rng: np.random.Generator) -> int:
    """First frame after the event, in the middle half of the clip."""
    return int(rng.integers(FRAMES // 4, 3 * FRAMES // 4))


def _appear(scene: Scene, rng: np.random.Generator) -> States | None:
    thing, moment = scene.things[-1], _moment(rng)
    by_shape = rng.random() < 0.5
    question = APPEARS_SHAPE if by_shape else APPEARS_COLOR
    return [None] * moment + [thing] * (FRAMES - moment), question, thing.shape if by_shape else thing.color


def _change(scene: Scene, rng: np.random.Generator) -> States | None:
    thing, moment = scene.things[-1], _moment(rng)
    color = pick(rng, [c for c in COLOR_NAMES if c != thing.color])
    after = replace(thing, color=color)
    question = f"what color does the {thing.shape} change to?"
    things: list[Thing | None] = [thing] * moment
    return things + [after] * (FRAMES - moment), question, color


ACTORS: dict[str, Callable[[Scene, np.random.Generator], States | None]] = {
    "move": _move,
    "appear": _appear,
    "change": _change,
}


def practice(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """The clip's own question, then more about what happens in it, for training: a clip costs more than questions."""
    thing, other = clip.thing, replace(clip.thing, color=pick(rng, COLOR_NAMES))
    asked = [Question(KIND, clip.question, clip.answer), Question(DETAIL, "what happens in the video?", clip.action)]
    if clip.action == "move":
        said = pick(rng, ("left", "right"))
        asked += [
            Question(DETAIL, f"does the {thing.color} {thing.shape} move to the {said}?", yes_no(said == clip.answer)),
            Question(DETAIL, "which object moves?", f"{thing.color} {thing.shape}"),
        ]
    elif clip.action == "appear":
        asked += [
            Question(KIND, text, answer)
            for text, answer in ((APPEARS_SHAPE, thing.shape), (APPEARS_COLOR, thing.color))
            if text != clip.question
        ]
        shown = pick(rng, (thing, other))
        answer = yes_no(shown.color == thing.color)
        asked.append(Question(DETAIL, f"does a {shown.color} {shown.shape} appear?", answer))
    else:
        asked += [
            Question(DETAIL, f"what color does the {thing.shape} have at first?", thing.color),
            Question(DETAIL, "which shape changes its color?", thing.shape),
        ]
    return asked
