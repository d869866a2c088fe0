"""Questions about a scene whose answers are known and cannot be guessed without looking.

Every function takes the scene and a random generator and returns `Question`s; yes/no questions are balanced by
construction, and negatives often share a colour or a shape with something present (POPE's adversarial idea).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .scenes import BACKGROUNDS, COLOR_NAMES, DIGITS, LETTERS, SHAPES, Scene, Thing

SHORT = "\nAnswer the question using a single word or phrase."
NO_OCR = "\nReference OCR token: "  # TextVQA prompts carry this line; it is empty where an OCR engine found nothing
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Question:
    """`kind`: the ability it tests; `text`: without the closing sentence of its prompt; `answer`: the expected output.

    `ending` is that closing sentence where the question only makes sense with it; None: the short-answer sentence or
    none. `follow`: (text, answer) of further turns about the same, which need what was said before.
    """

    kind: str
    text: str
    answer: str
    ending: str | None = None
    follow: tuple[tuple[str, str], ...] = ()


def yes_no(value: bool) -> str:
    return "Yes" if value else "No"


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def pick(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def unique(things: list[Thing], key) -> list[Thing]:
    counts = Counter(key(t) for t in things)
    return [t for t in things if counts[key(t)] == 1]


def absent_name(scene: Scene, rng: np.random.Generator, hard: bool) -> str:
    """A colour-shape pair that is not in the scene; `hard` ones share colour or shape with something present."""
    present = {t.name for t in scene.things}
    colors, shapes = {t.color for t in scene.things}, {t.shape for t in scene.things}
    names = [(c, s) for c in COLOR_NAMES for s in SHAPES if f"{c} {s}" not in present]
    if hard:
        both = [n for n in names if n[0] in colors and n[1] in shapes]
        either = [n for n in names if n[0] in colors or n[1] in shapes]
        names = (both if both and rng.random() < 0.6 else either) or names
    return " ".join(pick(rng, names))


def existence(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is there a red circle / a circle / a red object in the image?"""
    out = []
    roll, yes = rng.random(), bool(rng.integers(2))
    if roll < 0.7:
        if yes and scene.things:
            name = pick(rng, scene.things).name
        else:
            yes, name = False, absent_name(scene, rng, hard=rng.random() < 0.6)
    else:
        key, values = (lambda t: t.shape, SHAPES) if roll < 0.85 else (lambda t: t.color, COLOR_NAMES)
        present = sorted({key(t) for t in scene.things})
        absent = [v for v in values if v not in present]
        yes = yes and bool(present) or not absent
        name = pick(rng, present if yes else absent)
        if roll >= 0.85:
            name += " object"
    out.append(Question("existence", f"Is there {article(name)} in the image?", yes_no(yes)))
    return out


def color(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What color is the circle? (the only circle)"""
    alone = unique(scene.things, lambda t: t.shape)
    if not alone:
        return []
    thing = pick(rng, alone)
    if rng.random() < 0.8:
        return [Question("color", f"What color is the {thing.shape}?", thing.color)]
    yes = bool(rng.integers(2))
    others = [c for c in {t.color for t in scene.things} | {pick(rng, COLOR_NAMES)} if c != thing.color]
    yes = yes or not others
    return [
        Question("color", f"Is the {thing.shape} {thing.color if yes else pick(rng, sorted(others))}?", yes_no(yes))
    ]


def shape(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What shape is the red object? (the only red one)"""
    alone = unique(scene.things, lambda t: t.color)
    if not alone:
        return []
    thing = pick(rng, alone)
    if rng.random() < 0.85:
        return [Question("shape", f"What shape is the {thing.color} object?", thing.shape)]
    yes = bool(rng.integers(2))
    if rng.random() < 0.5:
        name = thing.shape if yes else pick(rng, [s for s in SHAPES if s != thing.shape])
        return [Question("shape", f"Is the {thing.color} object {article(name)}?", yes_no(yes))]
    return [Question("commonsense", f"Can the {thing.color} object roll?", yes_no(thing.shape in ("circle", "ring")))]


def _sides(scene: Scene, thing: Thing) -> tuple[str, str, bool]:
    """Vertical and horizontal half, and whether the centre is clear of both middle lines."""
    middle, margin = scene.canvas / 2, scene.canvas / 18
    clear = abs(thing.x - middle) > margin and abs(thing.y - middle) > margin
    return ("top" if thing.y < middle else "bottom"), ("left" if thing.x < middle else "right"), clear


def placed_clearly(scene: Scene) -> list[Thing]:
    """The things of which there is one only, clear of both middle lines."""
    return [t for t in unique(scene.things, lambda t: t.name) if _sides(scene, t)[2]]


def position(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Where is one of the things that are placed clearly?"""
    clear = placed_clearly(scene)
    return [position_of(scene, rng, pick(rng, clear))] if clear else []


def position_of(scene: Scene, rng: np.random.Generator, thing: Thing) -> Question:
    """Where is the red circle? -> top left; left or right side; yes/no for the left half."""
    vertical, horizontal, _ = _sides(scene, thing)
    roll = rng.random()
    if roll < 0.5:
        return Question("position", f"Where is the {thing.name}?", f"{vertical} {horizontal}")
    if roll < 0.65:
        return Question("position", f"Is the {thing.name} on the left or right side of the image?", horizontal)
    if roll < 0.75:
        return Question("position", f"Is the {thing.name} at the top or bottom of the image?", vertical)
    yes = bool(rng.integers(2))
    flip = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    half = pick(rng, (vertical, horizontal))
    return Question(
        "position", f"Is the {thing.name} in the {half if yes else flip[half]} half of the image?", yes_no(yes)
    )


def positions_among_alike(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Where are the things that share their colour or their shape with another one? Up to three of them."""
    alike = [
        t
        for t in placed_clearly(scene)
        if any(o is not t and (o.color == t.color or o.shape == t.shape) for o in scene.things)
    ]
    chosen = [alike[i] for i in rng.permutation(len(alike))[:3]]
    return [position_of(scene, rng, thing) for thing in chosen]


def relation(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Is the red circle to the left of / above the blue square?"""
    alone = unique(scene.things, lambda t: t.name)
    if len(alone) < 2:
        return []
    a, b = (alone[i] for i in rng.permutation(len(alone))[:2])
    across = abs(a.x - b.x) > abs(a.y - b.y)
    yes = bool(rng.integers(2))
    before = (a.x < b.x) if across else (a.y < b.y)
    words = ("to the left of", "to the right of") if across else ("above", "below")
    word = words[0] if before == yes else words[1]
    return [Question("relation", f"Is the {a.name} {word} the {b.name}?", yes_no(yes))]


def plural(target: str) -> str:
    """red -> red objects, cross -> crosses."""
    if target in COLOR_NAMES:
        return f"{target} objects"
    return "crosses" if target == "cross" else f"{target}s"


def count(scene: Scene, target: str) -> int:
    return sum(target in (t.color, t.shape) for t in scene.things)


def counting(scene: Scene, rng: np.random.Generator, target: str | None = None) -> list[Question]:
    """How many red objects / circles are there? `target`: the colour or shape the scene was built around."""
    target = target or pick(rng, COLOR_NAMES + SHAPES)
    n = count(scene, target)
    if n >= len(NUMBER_WORDS):
        return []
    if rng.random() < 0.8:
        return [Question("counting", f"How many {plural(target)} are there in the image?", str(n))]
    return count_claimed(scene, rng, target)


def count_claimed(scene: Scene, rng: np.random.Generator, target: str | None = None) -> list[Question]:
    """Are there three red objects? Yes in one of two, otherwise one more or less than there are."""
    if target is None:
        shown = [name for thing in scene.things for name in (thing.color, thing.shape)]  # what is frequent, more often
        if not shown:
            return []
        target = pick(rng, shown)
    n = count(scene, target)
    yes = bool(rng.integers(2))
    if n == 0 or n >= len(NUMBER_WORDS):
        return []
    said = n if yes else pick(rng, [m for m in (n - 1, n + 1) if 1 <= m < len(NUMBER_WORDS)])
    one = f"{target} object" if target in COLOR_NAMES else target
    claim = f"Are there {NUMBER_WORDS[said]} {plural(target)}" if said > 1 else f"Is there {NUMBER_WORDS[said]} {one}"
    return [Question("counting", f"{claim} in the image?", yes_no(yes))]


def random_code(rng: np.random.Generator, length: int, alphabet: str = "") -> str:
    alphabet = alphabet or pick(rng, (LETTERS, DIGITS, LETTERS + DIGITS))
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), length))


def reading(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is written on the sign? and yes/no about it; sums on the sign are questions of calculation."""
    if scene.sign is None:
        return []
    text = scene.sign.text
    if "+" in text:
        total = sum(int(part) for part in text.split("+"))
        yes = bool(rng.integers(2))
        said = total if yes else total + int(pick(rng, (-2, -1, 1, 2)))
        if rng.random() < 0.4:
            return [Question("calculation", "What is the result of the sum on the sign?", str(total))]
        return [Question("calculation", f"Is the answer to the sum on the sign {said}?", yes_no(yes))]
    roll = rng.random()
    if roll < 0.12:
        yes = bool(rng.integers(2))
        shown = text if yes else near_miss(text, rng)
        return [Question("ocr", f'Is the text on the sign "{shown}"?', yes_no(yes))]
    if roll < 0.25:
        k = int(rng.integers(min(len(text), 3)))
        return [Question("reading", f"What is the {('first', 'second', 'third')[k]} character on the sign?", text[k])]
    what = "What number is on the sign?" if text.isdigit() and rng.random() < 0.5 else "What is written on the sign?"
    return [Question("reading", what, text)]


def near_miss(text: str, rng: np.random.Generator) -> str:
    """The same text with one character changed."""
    k = int(rng.integers(len(text)))
    alphabet = DIGITS if text[k] in DIGITS else LETTERS
    return text[:k] + pick(rng, alphabet.replace(text[k], "")) + text[k + 1 :]


def background(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What pattern does the background have?"""
    if rng.random() < 0.5:
        return [Question("scene", "What pattern does the background have?", scene.background)]
    yes = bool(rng.integers(2))
    said = scene.background if yes else pick(rng, [b for b in BACKGROUNDS if b != scene.background])
    return [Question("scene", f"Does this image show {article(said)} background?", yes_no(yes))]


def sign_presence(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return [Question("existence", "Is there a sign in the image?", yes_no(scene.sign is not None))]


def caption(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Describe the image: everything from left to right."""
    parts = [(t.x, article(t.name)) for t in scene.things]
    if scene.sign:
        parts.append(((scene.sign.box[0] + scene.sign.box[2]) / 2, f"a sign that says {scene.sign.text}"))
    if not parts:
        return []
    return [Question("caption", "Describe the image.", ", ".join(p for _, p in sorted(parts)) + ".")]


ASKERS = {
    "existence": existence,
    "color": color,
    "shape": shape,
    "position": position,
    "relation": relation,
    "counting": counting,
    "reading": reading,
    "scene": background,
    "sign": sign_presence,
    "caption": caption,
}
