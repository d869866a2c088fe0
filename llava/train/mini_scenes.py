"""Shared by the writers of the mini benchmarks: held-out scenes of a fixed seed, small images, JSON files."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from . import questions as ask
from .examples import Difficulty, random_name
from .nano import IMAGE_SIZE, PATCH
from .scenes import Scene, Window, draw_scene, sample_scene
from .wide import sample_wide

SEED = 990_000_001
LEVEL = Difficulty(side=IMAGE_SIZE // PATCH, things=7, radius=(17.0, 40.0), characters=3)
WHOLE = Window(0, 0, IMAGE_SIZE // PATCH)
JPEG = {"quality": 85}
SMALL = 62  # JPEG quality of the benchmarks that came later: all together have to stay small
WIDE = Difficulty(side=IMAGE_SIZE // PATCH, things=7, radius=(17.0, 40.0), sign=0.5, characters=4)
ANNOTATORS = 10


def make_scene(
    rng: np.random.Generator, names: list[tuple[str, str]], sign: str | None = None, level: Difficulty = LEVEL
) -> Scene:
    return sample_scene(
        rng,
        canvas=IMAGE_SIZE,
        patch=PATCH,
        window=WHOLE,
        names=names,
        radius=level.radius,
        sign_text=sign,
        font_sizes=level.font_sizes,
    )


def free_scene(rng: np.random.Generator, fewest: int = 2, sign: float = LEVEL.sign) -> Scene:
    names = [random_name(rng) for _ in range(int(rng.integers(fewest, LEVEL.things + 1)))]
    return make_scene(rng, names, ask.random_code(rng, int(rng.integers(2, 4))) if rng.random() < sign else None)


def save_image(scene: Scene, path: Path, quality: int = JPEG["quality"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_scene(scene)[0].save(path, "JPEG", quality=quality)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def image_base64(scene: Scene) -> str:
    file = BytesIO()
    draw_scene(scene)[0].save(file, "JPEG", quality=SMALL)
    return base64.b64encode(file.getvalue()).decode()


def wide_scene(rng: np.random.Generator, sign: float = WIDE.sign) -> Scene:
    """A full scene as in the wide curriculum, with at least two things."""
    while True:
        level = Difficulty(WIDE.side, WIDE.things, WIDE.radius, sign, WIDE.characters, WIDE.font_sizes)
        scene = sample_wide(rng, level, IMAGE_SIZE, PATCH)[0]
        if len(scene.things) >= 2:
            return scene


def scene_with_sign(rng: np.random.Generator, text: str) -> Scene:
    """A scene with `text` on its sign and one to four things."""
    while True:
        scene = make_scene(rng, [random_name(rng) for _ in range(int(rng.integers(1, 5)))], text, WIDE)
        if scene.sign:
            return scene


class InTurn:
    """Asks about scenes so that every kind comes about equally often, and both answers of yes/no within a kind."""

    def __init__(self, askers: Sequence[Callable], rng: np.random.Generator):
        self.askers, self.rng, self.asked = askers, rng, [0] * len(askers)
        self.said: dict[tuple[int, str], int] = {}

    def __call__(self, scene: Scene, number: int) -> list[tuple[int, ask.Question]]:
        """Up to `number` questions of different kinds, each with its asker's index; rarest kinds first."""
        order = sorted(range(len(self.askers)), key=lambda k: (self.asked[k], self.rng.random()))
        out: list[tuple[int, ask.Question]] = []
        for k in order:
            drawn = [q for _ in range(6) for q in self.askers[k](scene, self.rng)]
            if not drawn or len(out) == number:
                continue
            q = min(drawn, key=lambda q: self.said.get((k, q.answer), 0))
            if q.text in (other.text for _, other in out):
                continue
            self.asked[k] += 1
            self.said[k, q.answer] = self.said.get((k, q.answer), 0) + 1
            out.append((k, q))
        return out


def ten_answers(answer: str, others: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Eight to ten annotators agree, in lower case; the rest say one of `others`."""
    wrong = int(rng.integers(3)) if others else 0
    answers = [answer.lower()] * (ANNOTATORS - wrong) + [ask.pick(rng, others).lower() for _ in range(wrong)]
    return [answers[i] for i in rng.permutation(ANNOTATORS)]
