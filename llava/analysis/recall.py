"""How many of the tokens that show something a method keeps, against chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llava.analysis.truth import Truth

SURE = 1.96  # standard errors on either side of a mean that hold 95 % of it
MEASURES = {
    "things found": "share of the things of which at least one token is kept",
    "thing tokens": "share of the tokens on things that is kept",
    "asked thing found": "the same for the thing the question is about",
    "asked thing tokens": "share of the tokens on the thing the question is about that is kept",
    "sign tokens": "share of the tokens on signs that is kept",
    "letters found": "share of the characters of which at least one token is kept",
    "letter tokens": "share of the tokens on characters that is kept",
    "background tokens": "share of the tokens that show neither thing nor sign that is kept",
}


@dataclass(frozen=True)
class Measure:
    """One measure of one method over all images that have what it is about.

    Args:
        value: mean over the images.
        margin: half the 95 % confidence interval of the mean.
        chance: mean over the images of what as many random tokens would reach.
        images: how many.
    """

    value: float
    margin: float
    chance: float
    images: int

    @property
    def ratio(self) -> float:
        """Value relative to chance."""
        return self.value / self.chance


def chance_found(size: int, kept: int, n: int) -> float:
    """Chance that at least one of `size` tokens is among `kept` random ones of n (hypergeometric)."""
    return 1 - math.comb(n - size, kept) / math.comb(n, kept)


def of_image(kept: np.ndarray, n: int, truth: Truth) -> dict[str, tuple[float, float]]:
    """Return measure -> (value, chance) of one image; measures of what is not in it are left out.

    Args:
        kept: offsets of the kept tokens.
        n: tokens of the image.
    """
    share = len(kept) / n
    found: dict[str, tuple[float, float]] = {}

    def hit(name: str, groups: Sequence[np.ndarray]) -> None:
        groups = [group for group in groups if len(group)]
        if groups:
            value = statistics.mean(float(np.isin(group, kept).any()) for group in groups)
            found[name] = value, statistics.mean(chance_found(len(group), len(kept), n) for group in groups)

    def part(name: str, tokens: np.ndarray) -> None:
        if len(tokens):
            found[name] = float(np.isin(tokens, kept).mean()), share

    asked = truth.things[truth.asked]
    hit("things found", truth.things)
    part("thing tokens", np.concatenate(truth.things))
    hit("asked thing found", [asked])
    part("asked thing tokens", asked)
    part("sign tokens", truth.sign)
    hit("letters found", truth.letters)
    part("letter tokens", np.concatenate(truth.letters) if truth.letters else np.empty(0, dtype=int))
    part("background tokens", truth.background)
    return found


def over_images(images: Sequence[dict[str, tuple[float, float]]]) -> dict[str, Measure]:
    """Return measure -> its mean over the images that have it, in the order of `MEASURES`."""
    found = {}
    for name in MEASURES:
        pairs = [image[name] for image in images if name in image]
        if pairs:
            values = [value for value, _ in pairs]
            spread = statistics.stdev(values) if len(values) > 1 else float("inf")
            chance = statistics.mean(chance for _, chance in pairs)
            found[name] = Measure(statistics.mean(values), SURE * spread / len(values) ** 0.5, chance, len(values))
    return found
