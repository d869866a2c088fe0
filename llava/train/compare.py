"""Questions that compare: more and fewer, bigger and smaller, further left, both and either, same and different."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .questions import Question, absent_name, article, count, pick, plural, unique, yes_no
from .scenes import COLOR_NAMES, SHAPES, Scene, Thing

CLEARLY_BIGGER = 1.25  # ratio of radii from which one thing is said to be bigger
CLEARLY_FURTHER = 1 / 24  # of the canvas's side, from which one thing is said to be further to a side
MOST_COUNTED = 5
SIDES = {
    "left": ("left", lambda t: t.x),
    "right": ("right", lambda t: -t.x),
    "up": ("top", lambda t: t.y),
    "down": ("bottom", lambda t: -t.y),
}


def counting_evenly(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """How many circles are there? The count is drawn first, high ones (which few scenes offer) more often."""
    groups: dict[int, list[str]] = {}
    for target in COLOR_NAMES + SHAPES:
        groups.setdefault(count(scene, target), []).append(target)
    groups = {n: targets for n, targets in groups.items() if n <= MOST_COUNTED}
    numbers = sorted(groups)
    weights = np.array([(1.0 + n) ** 2 for n in numbers])
    number = numbers[rng.choice(len(numbers), p=weights / weights.sum())]
    return [Question("counting", f"How many {plural(pick(rng, groups[number]))} are there in the image?", str(number))]


def more_or_fewer(scene: Scene, rng: np.random.Generator, targets: tuple[str, str] | None = None) -> list[Question]:
    """Are there more circles than squares? Which are there more of? Is their number the same? Balanced."""
    if targets is None:
        pool = COLOR_NAMES if rng.random() < 0.4 else SHAPES
        targets = tuple(pool[i] for i in rng.permutation(len(pool))[:2])
    a, b = (targets[i] for i in rng.permutation(2))
    n, m = count(scene, a), count(scene, b)
    if n == m == 0:
        return []
    if n == m or rng.random() < 0.15:
        text = f"Is the number of {plural(a)} the same as the number of {plural(b)}?"
        return [Question("comparison", text, yes_no(n == m))]
    word = pick(rng, ("more", "fewer"))
    true = (n > m) == (word == "more")
    if rng.random() < 0.5:
        return [Question("comparison", f"Are there {word} {plural(a)} than {plural(b)} in the image?", yes_no(true))]
    return [Question("comparison", f"Which are there {word} of, {plural(a)} or {plural(b)}?", plural(a if true else b))]


def bigger(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the red circle bigger than the blue square? Which is smaller? Only where the difference is clear."""
    alone = unique(scene.things, lambda t: t.name)
    pairs = [(a, b) for a in alone for b in alone if a.radius > CLEARLY_BIGGER * b.radius]
    if not pairs:
        return []
    big, small = pick(rng, pairs)
    a, b = (big, small) if rng.random() < 0.5 else (small, big)
    word = pick(rng, ("bigger", "smaller"))
    true = (a is big) == (word == "bigger")
    if rng.random() < 0.5:
        return [Question("size", f"Is the {a.name} {word} than the {b.name}?", yes_no(true))]
    return [Question("size", f"Which is {word}, the {a.name} or the {b.name}?", (a if true else b).name)]


def further(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Which is further left, the red circle or the blue square?"""
    alone = unique(scene.things, lambda t: t.name)
    if len(alone) < 2:
        return []
    a, b = (alone[i] for i in rng.permutation(len(alone))[:2])
    side = pick(rng, tuple(SIDES))
    key = SIDES[side][1]
    if abs(key(a) - key(b)) < CLEARLY_FURTHER * scene.canvas:
        return []
    first = a if key(a) < key(b) else b
    return [Question("relation", f"Which is further {side}, the {a.name} or the {b.name}?", first.name)]


def extreme(scene: Scene, side: str) -> Thing | None:
    """The thing nearest to a side of the image, or None when two are about as near."""
    order = sorted(scene.things, key=SIDES[side][1])
    if len(order) < 2 or SIDES[side][1](order[1]) - SIDES[side][1](order[0]) < CLEARLY_FURTHER * scene.canvas:
        return None
    return order[0]


def outermost(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Which object is closest to the left side of the image?"""
    side = pick(rng, tuple(SIDES))
    thing = extreme(scene, side)
    if thing is None:
        return []
    text = f"Which object is closest to the {SIDES[side][0]} side of the image?"
    return [Question("relation", text, thing.name)]


def neighbour(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What color is the circle to the left of the blue square? Exactly one circle lies there."""
    found = []
    for b in unique(scene.things, lambda t: t.name):
        for side, words in (
            ("left", "to the left of"),
            ("right", "to the right of"),
            ("up", "above"),
            ("down", "below"),
        ):
            key = SIDES[side][1]
            beyond = [t for t in scene.things if key(t) < key(b) and t is not b]
            clear = [t for t in beyond if key(b) - key(t) > CLEARLY_FURTHER * scene.canvas]
            for kind, asked in (("color", "shape"), ("shape", "color")):
                for t in clear:
                    if sum(getattr(o, asked) == getattr(t, asked) for o in beyond) == 1:
                        noun = t.shape if kind == "color" else f"{t.color} object"
                        found.append((f"What {kind} is the {noun} {words} the {b.name}?", getattr(t, kind)))
    if not found:
        return []
    text, answer = pick(rng, found)
    return [Question("relation", text, answer)]


def both_or_either(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Are there both a red circle and a blue star? Is there either ...? Each answer as often as the other."""
    if len({t.name for t in scene.things}) < 2:
        return []
    yes, both = bool(rng.integers(2)), bool(rng.integers(2))
    names = sorted({t.name for t in scene.things})
    present = [names[i] for i in rng.permutation(len(names))[:2]]
    absent = [absent_name(scene, rng, hard=True) for _ in range(2)]
    if both:
        pair = present if yes else [present[0], absent[0]]
        words = "Are there both", "and"
    else:
        pair = [present[0], absent[0]] if yes else absent
        words = "Is there either", "or"
    first, second = (pair[i] for i in rng.permutation(2))
    text = f"{words[0]} {article(first)} {words[1]} {article(second)} in the image?"
    return [Question("logic", text, yes_no(yes))] if first != second else []


def same(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Do the circle and the star have the same color? Do the red and the blue object have the same shape?"""
    key, other, noun = ("shape", "color", "") if rng.random() < 0.5 else ("color", "shape", " object")
    alone = unique(scene.things, lambda t: getattr(t, key))
    pairs = [(a, b) for a in alone for b in alone if a is not b]
    yes = bool(rng.integers(2))
    pairs = [p for p in pairs if (getattr(p[0], other) == getattr(p[1], other)) == yes]
    if not pairs:
        return []
    a, b = pick(rng, pairs)
    text = f"Do the {getattr(a, key)}{noun} and the {getattr(b, key)}{noun} have the same {other}?"
    return [Question("logic", text, yes_no(yes))]


def this_or_that(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the circle red or blue? Is the red object a circle or a star?"""
    by_shape = rng.random() < 0.5
    alone = unique(scene.things, lambda t: t.shape if by_shape else t.color)
    if not alone:
        return []
    thing = pick(rng, alone)
    right, pool = (thing.color, COLOR_NAMES) if by_shape else (thing.shape, SHAPES)
    near = sorted({t.color if by_shape else t.shape for t in scene.things} - {right})
    wrong = pick(rng, near) if near and rng.random() < 0.6 else pick(rng, [v for v in pool if v != right])
    first, second = (right, wrong) if rng.random() < 0.5 else (wrong, right)
    if by_shape:
        return [Question("choose", f"Is the {thing.shape} {first} or {second}?", right)]
    return [Question("choose", f"Is the {thing.color} object {article(first)} or {article(second)}?", right)]


def row_order(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """List the red objects from left to right (a detailed answer, for training)."""
    key = pick(rng, ("color", "shape"))
    target = pick(rng, sorted({getattr(t, key) for t in scene.things})) if scene.things else ""
    things = sorted((t for t in scene.things if getattr(t, key) == target), key=lambda t: t.x)
    if not things or any(b.x - a.x < 1 for a, b in pairwise(things)):
        return []
    names = ", ".join(t.shape if key == "color" else t.color for t in things)
    return [Question("listing", f"List the {plural(target)} from left to right.", names, "")]
