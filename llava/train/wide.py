"""Examples of the later curriculum: scenes and questions for the abilities that all benchmarks together ask for.

The weights are set by measured accuracy: what was weak after the first curriculum (counting, relations, sums, yes/no
about printed text) and what is new (comparison, letters, Chinese, unanswerable) comes often; what was at its ceiling
comes often enough to stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from . import compare, drills, signs
from . import questions as ask
from .examples import Difficulty, names_alike, names_with_count, random_name, random_window, scene_in
from .letters import chinese_choice, chinese_choice_in_turns, choice_in_turns, multiple_choice
from .scenes import COLOR_NAMES, SHAPES, Scene
from .unanswerable import maybe_unanswerable

Asker = Callable[[Scene, np.random.Generator], list[ask.Question]]
BRIEF: list[tuple[Asker, float]] = [
    (ask.caption, 0.5),
    (compare.row_order, 0.4),
    (ask.existence, 1.0),
    (ask.existence, 0.6),
    (ask.color, 0.6),
    (ask.shape, 0.6),
    (compare.this_or_that, 0.5),
    (ask.position, 0.8),
    (ask.position, 0.4),
    (ask.relation, 1.6),
    (ask.relation, 1.2),
    (compare.further, 1.2),
    (compare.outermost, 0.8),
    (compare.neighbour, 0.7),
    (compare.counting_evenly, 2.0),
    (compare.counting_evenly, 1.5),
    (compare.more_or_fewer, 0.6),
    (compare.bigger, 0.9),
    (compare.both_or_either, 0.6),
    (compare.same, 0.4),
    (ask.background, 0.25),
    (ask.sign_presence, 0.15),
    (drills.addition, 0.25),
]
ON_SIGNS: list[tuple[Asker, float]] = [
    (ask.reading, 0.8),
    (signs.read, 2.0),
    (signs.character, 0.8),
    (signs.spelled, 2.0),
    (signs.result, 3.0),
    (signs.result_is, 2.5),
    (signs.term, 1.0),
]
# Long prompts: they come in batches of their own, so that short questions are not padded to their length.
LONG: list[tuple[Asker, float]] = [
    (multiple_choice, 1.0),
    (choice_in_turns, 3.0),
    (choice_in_turns, 3.0),
    (choice_in_turns, 2.0),
    (chinese_choice, 0.6),
    (chinese_choice_in_turns, 1.8),
    (chinese_choice_in_turns, 1.2),
    (maybe_unanswerable, 1.5),
    (maybe_unanswerable, 0.8),
    (drills.lookup, 0.6),
]

# What is still weak after most of the curriculum comes more often in its last stages, times these.
WEAK: dict[Asker, float] = {
    compare.bigger: 2.5,
    compare.outermost: 2.0,
    compare.neighbour: 1.3,
    compare.further: 1.3,
    compare.both_or_either: 1.5,
    compare.same: 1.5,
    drills.addition: 1.6,
    signs.spelled: 1.6,
    signs.result: 1.3,
    ask.position: 1.6,
    ask.relation: 1.3,
    compare.counting_evenly: 1.4,
}
# After that, what the first curriculum taught: all places, numbers and backgrounds again.
BASIC: dict[Asker, float] = {
    **WEAK,
    ask.position: 3.0,
    compare.counting_evenly: 2.0,
    ask.count_claimed: 2.0,
    ask.existence: 1.3,
    ask.background: 3.0,
}
COUNTS: dict[Asker, float] = {**BASIC, ask.position: 4.0, compare.counting_evenly: 4.0}
# What was missed last: high counts, and places of things that share their colour with one and their shape with another.
ALIKE: dict[Asker, float] = {**COUNTS, compare.counting_evenly: 5.0, ask.positions_among_alike: 3.0}
EMPHASES: dict[str, dict[Asker, float]] = {
    "": {},
    "weak": WEAK,
    "basic": BASIC,
    "counts": COUNTS,
    "alike": ALIKE,
}


def names_for_comparison(rng: np.random.Generator, targets: tuple[str, str], things: int) -> list[tuple[str, str]]:
    """(colour, shape) pairs with independent counts of two colours or two shapes, equal counts in one of three."""
    most = min(compare.MOST_COUNTED, things - 1)
    n = int(rng.integers(0, most + 1))
    m = n if rng.random() < 0.35 else int(rng.integers(0, most + 1))
    n, m = (max(1, v * things // max(things, n + m)) if v else 0 for v in (n, m))
    names = names_with_count(rng, targets[0], n, n) + names_with_count(rng, targets[1], m, m)
    left = things - len(names)
    while left > 0 and rng.random() < 0.5:
        color, shape = random_name(rng)
        if color not in targets and shape not in targets:
            names.append((color, shape))
            left -= 1
    return [names[i] for i in rng.permutation(len(names))] or [random_name(rng)]


def wide_sign_text(rng: np.random.Generator, longest: int) -> str:
    """A sum of two digits (four in ten) or a code of two to `longest` characters."""
    if rng.random() < 0.4:
        return f"{rng.integers(10)}+{rng.integers(10)}"
    return ask.random_code(rng, int(rng.integers(2, longest + 1)))


def sample_wide(
    rng: np.random.Generator,
    level: Difficulty,
    canvas: int,
    patch: int,
    long: bool = False,
    emphasis: Mapping[Asker, float] = MappingProxyType({}),
) -> tuple[Scene, list[ask.Question]]:
    """Draw a scene and questions about it; `long` ones are multiple choice and those that may be unanswerable.

    `emphasis` multiplies the weights of some askers; those that neither list has join the short ones with that weight.
    """
    window = random_window(rng, level, canvas // patch)
    target, pair, roll = None, None, rng.random()
    if level.alike and rng.random() < level.alike:
        names = names_alike(rng, level.things)
    elif roll < 0.5:
        target = ask.pick(rng, COLOR_NAMES + SHAPES)
        count = int(rng.integers(0, min(compare.MOST_COUNTED, level.things) + 1))
        names = names_with_count(rng, target, count, max(1, int(rng.integers(count, level.things + 1))))
    elif roll < 0.72:
        pool = COLOR_NAMES if rng.random() < 0.4 else SHAPES
        pair = tuple(pool[i] for i in rng.permutation(len(pool))[:2])
        names = names_for_comparison(rng, pair, level.things)
    else:
        names = [random_name(rng) for _ in range(int(rng.integers(1, level.things + 1)))]
    text = wide_sign_text(rng, level.characters) if rng.random() < level.sign else None
    scene = scene_in(window, rng, level, canvas, patch, names, text)
    askers = list(LONG) if long else BRIEF + (ON_SIGNS if scene.sign else [])
    if not long:
        known = {asker for asker, _ in BRIEF + ON_SIGNS + LONG}
        askers += [(asker, 1.0) for asker in emphasis if asker not in known]
    askers = [(asker, weight * emphasis.get(asker, 1.0)) for asker, weight in askers]
    if target and not long:
        askers.append((lambda s, r: ask.counting(s, r, target), 2.5))
    if pair and not long:
        askers += [(lambda s, r: compare.more_or_fewer(s, r, pair), 3.0)] * 2
    return scene, _ask(scene, rng, askers, level.questions)


def _ask(scene: Scene, rng: np.random.Generator, askers: list[tuple[Asker, float]], most: int) -> list[ask.Question]:
    """Up to `most` different questions; askers come in random order, heavier ones earlier."""
    weights = np.array([weight for _, weight in askers])
    asked: dict[str, ask.Question] = {}
    for k in np.argsort(-(rng.random(len(askers)) ** (1 / weights))):
        for q in askers[k][0](scene, rng):
            asked.setdefault(q.text, q)
        if len(asked) >= most:
            break
    return list(asked.values())
