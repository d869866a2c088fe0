"""Which words of a caption are not true of a drawn scene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava.train.scenes import COLOR_NAMES, SHAPES, Scene

_THING = rf"\b(?P<color>{'|'.join(COLOR_NAMES)})\s+(?P<shape>{'|'.join(SHAPES)})\b"
_SIGN = r"\bsign that says\s+(?P<text>[^\s.,]+)"
_CLAIM = re.compile(f"(?:{_THING})|(?:{_SIGN})", re.IGNORECASE)


@dataclass(frozen=True)
class Truth:
    """What is in a drawn image: "red circle", ... (as often as it is there) and the text of its sign, if it has one."""

    things: tuple[str, ...]
    sign: str | None = None

    @classmethod
    def of(cls, scene: Scene) -> Truth:
        """The truth of a scene, things from left to right."""
        things = sorted(scene.things, key=lambda thing: thing.x)
        return cls(tuple(thing.name for thing in things), scene.sign.text if scene.sign else None)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Truth:
        """From JSON."""
        return cls(tuple(content["things"]), content["sign"])

    @property
    def words(self) -> str:
        """As one would say it."""
        sign = [f"a sign that says {self.sign}"] if self.sign else []
        return ", ".join([*(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in self.things), *sign])


@dataclass(frozen=True)
class Judged:
    """A caption in pieces, each with whether it is untrue; how many claims it makes, how many are untrue or left out.

    Claims are colour and shape of a thing, and the text of the sign; other words are not judged.
    """

    pieces: tuple[tuple[str, bool], ...]
    claims: int
    untrue: int
    left_out: int


def judge(caption: str, truth: Truth) -> Judged:
    """Compare a caption with what is there.

    A thing that is named more often than it is there is untrue from the first name too many; a thing of the right shape
    but another colour is untrue as a whole. Reading a sign counts letter case as equal.
    """
    left = Counter(truth.things)
    sign_left = truth.sign
    pieces: list[tuple[str, bool]] = []
    end = claims = untrue = 0
    for found in _CLAIM.finditer(caption):
        if found["text"] is None:
            name = f"{found['color']} {found['shape']}".lower()
            wrong = left[name] <= 0
            left[name] -= 0 if wrong else 1
            start = found.start()
        else:
            wrong = sign_left is None or found["text"].lower() != sign_left.lower()
            sign_left = sign_left if wrong else None
            start = found.start("text") if truth.sign is not None else found.start()
        pieces += [(caption[end:start], False), (caption[start : found.end()], wrong)]
        end, claims, untrue = found.end(), claims + 1, untrue + wrong
    pieces.append((caption[end:], False))
    missed = sum(left.values()) + (sign_left is not None)
    return Judged(tuple(piece for piece in pieces if piece[0]), claims, untrue, missed)


def lines(pieces: Sequence[tuple[str, bool]], longest: int) -> list[list[list[tuple[str, bool]]]]:
    """Break a judged caption into lines of at most `longest` characters.

    Returns:
        lines of words; a word is a list of (text, untrue), so that a comma after an untrue word stays uncoloured.
    """
    rows: list[list[list[tuple[str, bool]]]] = []
    used = 0
    for word in _words(pieces):
        length = sum(len(text) for text, _ in word)
        if not rows or used + 1 + length > longest:
            rows.append([])
            used = -1
        rows[-1].append(word)
        used += 1 + length
    return rows


def _words(pieces: Sequence[tuple[str, bool]]) -> list[list[tuple[str, bool]]]:
    words: list[list[tuple[str, bool]]] = [[]]
    for text, wrong in pieces:
        for part in re.findall(r"\s+|\S+", text):
            if part.isspace():
                words.append([])
            else:
                words[-1].append((part, wrong))
    return [word for word in words if word]
