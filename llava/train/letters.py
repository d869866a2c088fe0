"""Multiple choice with letters, English and Chinese, in the prompt formats of MMBench, ScienceQA and SEED-Bench."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from . import signs
from .chinese import LETTER_CN, translate
from .compare import CLEARLY_BIGGER, MOST_COUNTED, SIDES, count, extreme, plural
from .questions import Question, absent_name, near_miss, pick, unique
from .scenes import BACKGROUNDS, COLOR_NAMES, SHAPES, Scene

LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTERS = "ABCD"
CORNERS = ("top left", "top right", "bottom left", "bottom right")
BESIDE = ("left", "right", "above", "below")
ROLLING = ("circle", "ring")
ENGLISH = {
    "color": "What color is the {0}?",
    "shape": "What shape is the {0} object?",
    "corner": "Where is the {0}?",
    "count": "How many {0} are there in the image?",
    "present": "Which of these is in the image?",
    "absent": "Which of these is not in the image?",
    "sign": "What is written on the sign?",
    "sum": "What is the result of the sum on the sign?",
    "bigger": "Which is bigger?",
    "smaller": "Which is smaller?",
    "extreme": "Which object is closest to the {0} side of the image?",
    "beside": "On which side of the {1} is the {0}?",
    "background": "What pattern does the background have?",
    "roll": "Which object can roll?",
}
CHINESE = {
    "color": "{0}是什么颜色？",
    "shape": "{0}物体是什么形状？",
    "corner": "{0}在图中的什么位置？",
    "count": "图中有几个{0}？",
    "present": "图中有下列哪个物体？",
    "absent": "图中没有下列哪个物体？",
    "sign": "牌子上写的是什么？",
    "sum": "牌子上算式的结果是多少？",
    "bigger": "哪个物体更大？",
    "smaller": "哪个物体更小？",
    "extreme": "哪个物体在图中最{0}？",
    "beside": "{0}在{1}的哪一边？",
    "background": "背景是什么图案？",
    "roll": "哪个物体可以滚动？",
}
SIDE_CN = {"left": "left", "right": "right", "top": "above", "bottom": "below"}
HINTS = {
    "roll": ("Circles and rings can roll. The other shapes can not roll.", "圆形和圆环可以滚动，其他形状不能滚动。"),
    "sign": ("Look at the sign.", "请看牌子。"),
    "sum": ("Look at the sign.", "请看牌子。"),
    "background": ("Look at the background.", "请看背景。"),
}
OPTIONS = (2, 3, 3, 4, 4, 4, 4)  # how many, by frequency
ONE_ANSWER = {  # kinds of questions of which several can share their options, and who makes them
    "color": "attribute",
    "shape": "attribute",
    "corner": "corner",
    "count": "count",
    "extreme": "extreme",
    "beside": "beside",
}
TRIES, WORDS_FIRST = 6, 0.35
IN_WORDS = ("\nAnswer in words.", "\n请用文字回答。")
WHICH_LETTER = ("Which option is it?", "是哪个选项？")
WHAT_WORDS = ("What is it?", "是什么？")
HINT = ("Look at the image.", "请看图中的物体。")


@dataclass(frozen=True)
class Item:
    """A multiple-choice question before it is put into words: `args` fill the template, `right` is among no `wrong`."""

    key: str
    args: tuple[str, ...]
    right: str
    wrong: tuple[str, ...]

    def text(self, chinese: bool) -> str:
        if not chinese:
            args = (plural(a) for a in self.args) if self.key == "count" else self.args
            return ENGLISH[self.key].format(*args)
        args = self.args
        if self.key == "count" and args[0] in COLOR_NAMES:
            args = (f"{args[0]} object",)
        if self.key == "extreme":
            args = (SIDE_CN[args[0]],)
        return CHINESE[self.key].format(*map(translate, args))

    def hint(self, chinese: bool) -> str:
        return HINTS.get(self.key, HINT)[chinese]


def _item(key: str, args: Iterable[str], right: str, pool: Iterable[str]) -> list[Item]:
    return [Item(key, tuple(args), right, tuple(p for p in dict.fromkeys(pool) if p != right))]


def _attribute(scene: Scene, rng: np.random.Generator) -> list[Item]:
    key = pick(rng, ("color", "shape"))
    alone = unique(scene.things, lambda t: t.shape if key == "color" else t.color)
    if not alone:
        return []
    thing = pick(rng, alone)
    given, right = (thing.shape, thing.color) if key == "color" else (thing.color, thing.shape)
    return _item(key, (given,), right, COLOR_NAMES if key == "color" else SHAPES)


def _corner(scene: Scene, rng: np.random.Generator) -> list[Item]:
    middle, margin = scene.canvas / 2, scene.canvas / 18
    clear = [
        t for t in unique(scene.things, lambda t: t.name) if abs(t.x - middle) > margin and abs(t.y - middle) > margin
    ]
    if not clear:
        return []
    t = pick(rng, clear)
    right = f"{'top' if t.y < middle else 'bottom'} {'left' if t.x < middle else 'right'}"
    return _item("corner", (t.name,), right, CORNERS)


def _count(scene: Scene, rng: np.random.Generator) -> list[Item]:
    groups: dict[int, list[str]] = {}
    for target in COLOR_NAMES + SHAPES:
        groups.setdefault(count(scene, target), []).append(target)
    numbers = [n for n in sorted(groups) if n <= MOST_COUNTED]
    weights = np.array([1.0 + n for n in numbers])  # few scenes offer high counts
    number = numbers[rng.choice(len(numbers), p=weights / weights.sum())]
    return _item("count", (pick(rng, groups[number]),), str(number), map(str, range(MOST_COUNTED + 1)))


def _presence(scene: Scene, rng: np.random.Generator) -> list[Item]:
    names = sorted({t.name for t in scene.things})
    absent = [absent_name(scene, rng, hard=rng.random() < 0.6) for _ in range(6)]
    if len(names) >= 2 and rng.random() < 0.4:
        order = [names[i] for i in rng.permutation(len(names))]
        return _item("absent", (), absent[0], order)
    return _item("present", (), pick(rng, names), absent) if names else []


def _sign(scene: Scene, rng: np.random.Generator) -> list[Item]:
    if scene.sign is None:
        return []
    if signs.is_sum(scene):
        right = signs.total(scene)
        return _item("sum", (), str(right), [str(n) for n in range(max(0, right - 3), right + 4)])
    text = scene.sign.text
    return _item("sign", (), text, [near_miss(text, rng) for _ in range(5)])


def _size(scene: Scene, rng: np.random.Generator) -> list[Item]:
    alone = sorted(unique(scene.things, lambda t: t.name), key=lambda t: t.radius)
    key = pick(rng, ("bigger", "smaller"))
    pairs = [(a, b) for a in alone for b in alone if b.radius > CLEARLY_BIGGER * a.radius]
    if not pairs:
        return []
    small, big = pick(rng, pairs)
    right, wrong = (big, small) if key == "bigger" else (small, big)
    return _item(key, (), right.name, (wrong.name,))


def _extreme(scene: Scene, rng: np.random.Generator) -> list[Item]:
    side = pick(rng, tuple(SIDES))
    thing = extreme(scene, side)
    return _item("extreme", (SIDES[side][0],), thing.name, (t.name for t in scene.things)) if thing else []


def _beside(scene: Scene, rng: np.random.Generator) -> list[Item]:
    alone = unique(scene.things, lambda t: t.name)
    if len(alone) < 2:
        return []
    a, b = (alone[i] for i in rng.permutation(len(alone))[:2])
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 2 * min(abs(dx), abs(dy)):
        return []
    right = ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
    return _item("beside", (a.name, b.name), right, BESIDE)


def _background(scene: Scene, rng: np.random.Generator) -> list[Item]:
    return _item("background", (), scene.background, BACKGROUNDS)


def _roll(scene: Scene, rng: np.random.Generator) -> list[Item]:
    rolls = sorted({t.name for t in scene.things if t.shape in ROLLING})
    stays = sorted({t.name for t in scene.things if t.shape not in ROLLING})
    return _item("roll", (), pick(rng, rolls), stays) if rolls and stays else []


ITEMS: dict[str, tuple[Callable[[Scene, np.random.Generator], list[Item]], float]] = {
    "attribute": (_attribute, 1.6),
    "corner": (_corner, 1.0),
    "count": (_count, 1.4),
    "presence": (_presence, 1.2),
    "sign": (_sign, 1.2),
    "size": (_size, 1.2),
    "extreme": (_extreme, 1.1),
    "beside": (_beside, 0.8),
    "background": (_background, 0.5),
    "roll": (_roll, 0.7),
}
_NAMES, _WEIGHTS = list(ITEMS), np.array([weight for _, weight in ITEMS.values()])


def sample_item(scene: Scene, rng: np.random.Generator, names: tuple[str, ...] | None = None) -> Item | None:
    """Draw what is asked (one of `names`, by weight when None); None when the scene does not offer it."""
    name = pick(rng, names) if names else _NAMES[rng.choice(len(_NAMES), p=_WEIGHTS / _WEIGHTS.sum())]
    items = ITEMS[name][0](scene, rng)
    return items[0] if items and items[0].wrong else None


def draw_options(item: Item, rng: np.random.Generator, number: int) -> list[str]:
    """The right option and others, at most `number` in all, in random order."""
    wrong = [item.wrong[i] for i in rng.permutation(len(item.wrong))[: number - 1]]
    options = [item.right, *wrong]
    return [options[i] for i in rng.permutation(len(options))]


def lines(options: Iterable[str], chinese: bool) -> str:
    """A. first option ... in lines of their own."""
    return "\n".join(f"{c}. {translate(o) if chinese else o}" for c, o in zip(LETTERS, options, strict=False))


def multiple_choice(scene: Scene, rng: np.random.Generator, chinese: bool = False) -> list[Question]:
    """One question with two to four options, now and then with a hint (MMBench) or a context line (ScienceQA)."""
    item = sample_item(scene, rng)
    if item is None:
        return []
    options = draw_options(item, rng, int(pick(rng, OPTIONS)))
    kind, ending = ("choice (Chinese)", LETTER_CN) if chinese else ("choice", LETTER)
    return [Question(kind, _asked(item, options, rng, chinese), LETTERS[options.index(item.right)], ending)]


def _asked(item: Item, options: list[str], rng: np.random.Generator, chinese: bool) -> str:
    roll, hint = rng.random(), item.hint(chinese)
    before = f"{hint}\n" if roll < 0.15 else f"Context: {hint}\n" if roll < 0.3 and not chinese else ""
    return f"{before}{item.text(chinese)}\n{lines(options, chinese)}"


def chinese_choice(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return multiple_choice(scene, rng, chinese=True)


def choice_in_turns(scene: Scene, rng: np.random.Generator, chinese: bool = False) -> list[Question]:
    """A multiple-choice question for training, with further turns: the answer in words, more questions on the options.

    Turns cost a fraction of a new question, and words make of one hard step (see, then find the letter) two easy ones.
    """
    item = sample_item(scene, rng)
    if item is None:
        return []
    more: dict[tuple[str, ...], Item] = {}
    for _ in range(TRIES if item.key in ONE_ANSWER else 0):
        for other in ITEMS[ONE_ANSWER[item.key]][0](scene, rng):
            if other.key == item.key and other.args != item.args:
                more[other.args] = other
    options = draw_options(item, rng, int(pick(rng, OPTIONS)))
    taken = {item.right}
    for other in more.values():  # their answers take the places of wrong options
        if other.right not in options:
            free = [k for k, option in enumerate(options) if option not in taken]
            if not free:
                continue
            options[free[0]] = other.right
        taken.add(other.right)
    turns = [(o.text(chinese), LETTERS[options.index(o.right)]) for o in more.values() if o.right in options]
    letter, words = LETTERS[options.index(item.right)], translate(item.right) if chinese else item.right
    kind, ending = ("choice (Chinese)", LETTER_CN) if chinese else ("choice", LETTER)
    text = _asked(item, options, rng, chinese)
    if rng.random() < WORDS_FIRST:
        kind += " in words"
        turns, answer, ending = [(WHICH_LETTER[chinese], letter), *turns], words, IN_WORDS[chinese]
    else:
        turns, answer = turns or [(WHAT_WORDS[chinese], words)], letter
    return [Question(kind, text, answer, ending, tuple(turns))]


def chinese_choice_in_turns(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return choice_in_turns(scene, rng, chinese=True)
