"""Training examples: a scene built around what will be asked, and its questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import questions as ask
from .scenes import COLOR_NAMES, SHAPES, Scene, Window, sample_scene


@dataclass(frozen=True)
class Difficulty:
    """What scenes of a training stage look like.

    Args:
        side: side of the window in patches.
        things: largest number of things.
        radius: bounding radius of things in pixels, smallest and largest.
        sign: share of scenes with a sign.
        characters: largest number of characters on a sign (at least 2).
        font_sizes: of the sign, in pixels.
        questions: number of questions for each scene.
        alike: share of scenes whose things have few colours and shapes, so that each looks like others (wide stages).
    """

    side: int
    things: int
    radius: tuple[float, float] = (16.0, 30.0)
    sign: float = 0.35
    characters: int = 3
    font_sizes: tuple[int, int] = (40, 58)
    questions: int = 8
    alike: float = 0.0


def random_name(rng: np.random.Generator) -> tuple[str, str]:
    return COLOR_NAMES[rng.integers(len(COLOR_NAMES))], SHAPES[rng.integers(len(SHAPES))]


def names_with_count(rng: np.random.Generator, target: str, count: int, total: int) -> list[tuple[str, str]]:
    """`total` (colour, shape) pairs of which exactly `count` have the colour or shape `target`."""
    names: list[tuple[str, str]] = []
    while len(names) < total:
        color, shape = random_name(rng)
        wanted = len(names) < count
        if wanted and target in COLOR_NAMES:
            color = target
        elif wanted:
            shape = target
        elif target in (color, shape):
            continue
        names.append((color, shape))
    return names


def names_alike(rng: np.random.Generator, things: int) -> list[tuple[str, str]]:
    """Up to `things` different (colour, shape) pairs of two or three colours and two or three shapes."""
    colors = rng.permutation(COLOR_NAMES)[: int(rng.integers(2, 4))]
    shapes = rng.permutation(SHAPES)[: int(rng.integers(2, 4))]
    pairs = [(str(color), str(shape)) for color in colors for shape in shapes]
    return [pairs[i] for i in rng.permutation(len(pairs))[: int(rng.integers(min(3, things), things + 1))]]


def sign_text(rng: np.random.Generator, longest: int) -> str:
    if longest >= 3 and rng.random() < 0.2:
        return f"{rng.integers(10)}+{rng.integers(10)}"
    return ask.random_code(rng, int(rng.integers(2, longest + 1)))


def random_window(rng: np.random.Generator, level: Difficulty, grid: int) -> Window:
    """A window of the level's size anywhere in a grid of patches."""
    row, column = (int(v) for v in rng.integers(0, grid - level.side + 1, 2))
    return Window(row, column, level.side)


def scene_in(
    window: Window,
    rng: np.random.Generator,
    level: Difficulty,
    canvas: int,
    patch: int,
    names: list[tuple[str, str]],
    text: str | None,
) -> Scene:
    """A scene of the level that shows things of these names, and a sign with this text, in a window."""
    return sample_scene(
        rng,
        canvas=canvas,
        patch=patch,
        window=window,
        names=names,
        radius=level.radius,
        sign_text=text,
        font_sizes=level.font_sizes,
    )


def sample_example(
    rng: np.random.Generator, level: Difficulty, canvas: int, patch: int
) -> tuple[Scene, list[ask.Question]]:
    """Draw a scene specification and questions about it."""
    window = random_window(rng, level, canvas // patch)
    target = None
    roll = rng.random()
    if roll < 0.5:  # built for counting: every count equally likely
        target = (COLOR_NAMES + SHAPES)[rng.integers(len(COLOR_NAMES) + len(SHAPES))]
        count = int(rng.integers(0, min(5, level.things) + 1))
        total = max(1, int(rng.integers(count, level.things + 1)))
        names = names_with_count(rng, target, count, total)
    else:
        names = [random_name(rng) for _ in range(int(rng.integers(1, level.things + 1)))]
    text = sign_text(rng, level.characters) if rng.random() < level.sign else None
    scene = scene_in(window, rng, level, canvas, patch, names, text)
    asked: list[ask.Question] = []
    kinds = [
        "caption",
        "existence",
        "existence",
        "color",
        "shape",
        "position",
        "position",
        "relation",
        "counting",
        "scene",
        "sign",
    ]
    weights = [0.6, 1.0, 0.8, 0.9, 0.9, 0.9, 0.6, 1.0, 2.0 if target else 0.8, 0.25, 0.15]
    if scene.sign:
        kinds += ["reading", "reading"]
        weights += [1.5, 1.0]
    order = [kinds[i] for i in np.argsort(-(rng.random(len(kinds)) ** (1 / np.array(weights))))]
    for kind in order:
        if kind == "counting" and target:
            asked += ask.counting(scene, rng, target)
        asked += ask.ASKERS[kind](scene, rng)
        if len(asked) >= level.questions:
            break
    seen, unique = set(), []
    for q in asked:
        if q.text not in seen:
            seen.add(q.text)
            unique.append(q)
    return scene, unique
