"""What the check of the theory found: tables of bounds and of outputs, sentences, picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from llava.analysis.bounds import Bounds, lemma_applies
from llava.analysis.output import Table
from llava.methodlists import Choice
from llava.reduction.dart import DART
from llava.report.figures import style

HIDDEN, NORMED, UNIT = "hidden states", "after the final norm", "unit length"
SPACES = {
    HIDDEN: "the hidden states that enter the layer of the cut",
    NORMED: "the same after the decoder's final norm, where DART compares them",
    UNIT: "the hidden states divided by their length",
}
EVERY, ONE = "every pivot", "most similar pivot"
NOTES = (
    "d_H(X, R): the farthest a dropped token is from what is kept, over all tokens that enter the layer of the cut "
    "(docs/theory.md).",
    "eps: least cosine between a dropped token and every pivot (the paper's rule), or its most similar pivot (all that "
    "the proof needs). Methods without pivots: its most similar kept token.",
    "Paper: sqrt(2 (1 - eps)) B with the largest norm B. Unequal norms: max over dropped x of "
    "sqrt((|p| - |x|)^2 + 2 (1 - eps) |p| |x|) with the best pivot p allowed by the rule. `b / B`: shortest over "
    "longest of these tokens; `proof applies`: share of the images with b >= (2 eps - 1) B, where the paper's lemma "
    "follows.",
    "`pairs broken`: share of the dropped tokens whose distance to their most similar pivot is above the paper's form "
    "with the cosine of just this pair, sqrt(2 (1 - cos)) B; the form for unequal norms is exact there.",
    "All columns are means over the images; `holds` is the share of the images in which the bound is not exceeded.",
    "Output: Euclidean distance of the logits of the first answered token, pruned against unpruned. The rank "
    "correlation (Spearman) with d_H is over the images of one method and budget. No Lipschitz constant follows from "
    "it.",
)


@dataclass(frozen=True)
class Measured:
    """One image under one method.

    Args:
        choice: the method.
        image: its name.
        bounds: space -> distance and bounds; a space is left out where nothing was dropped.
        change: distance of the logits.
        scale: length of the unpruned logits.
        same: whether the first answered token is the same.
    """

    choice: Choice
    image: str
    bounds: dict[str, Bounds]
    change: float
    scale: float
    same: bool

    @property
    def has_pivots(self) -> bool:
        """Whether it is DART, whose pivots are known."""
        return isinstance(self.choice.method, DART)


def verdicts(found: Sequence[Measured]) -> list[str]:
    """How often each bound holds, over all images, methods and budgets, one sentence per space and rule."""
    told = []
    for space in SPACES:
        for rule in (EVERY, ONE):
            own = [one.bounds[space] for one in found if space in one.bounds and (one.has_pivots or rule == ONE)]
            if own:
                paper = sum(one.holds(_pair(one, rule)[0]) for one in own)
                general = sum(one.holds(_pair(one, rule)[1]) for one in own)
                whose = "DART" if rule == EVERY else "all methods"
                told.append(
                    f"{space}, {rule} ({whose}): the paper's bound holds in {paper} of {len(own)} cases, the one for "
                    f"unequal norms in {general}."
                )
    return told + _remarks(found)


def _remarks(found: Sequence[Measured]) -> list[str]:
    """Why it holds, or how little that says: eps of DART, and pairs in which the paper's form fails."""
    told = []
    dart = [one.bounds[HIDDEN] for one in found if one.has_pivots and HIDDEN in one.bounds]
    if dart:
        low = sum(one.eps_one <= 0.5 for one in dart)
        bound = statistics.mean(one.paper_every / one.largest for one in dart)
        distance = statistics.mean(one.distance / one.largest for one in dart)
        told.append(
            f"{HIDDEN}, DART: eps is at most 1/2 in {low} of {len(dart)} cases, even with the most similar pivot. "
            f"There the paper's bound is at least the largest norm B and holds for any norms. On average it is "
            f"{bound:.2f} B with every pivot, and the distance {distance:.2f} B."
        )
    broken = [one.bounds[HIDDEN].broken for one in found if HIDDEN in one.bounds]
    if broken:
        told.append(
            f"{HIDDEN}, all methods: {statistics.mean(broken):.1%} of the dropped tokens are farther from their most "
            "similar pivot (kept token, for methods without pivots) than the paper's form says for that pair."
        )
    return told


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None for fewer than three or without variation."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _pair(one: Bounds, rule: str) -> tuple[float, float]:
    """The paper's bound and the one for unequal norms, by a rule."""
    return (one.paper_every, one.every) if rule == EVERY else (one.paper_one, one.one)


def _groups(found: Sequence[Measured]) -> Iterator[tuple[Choice, list[Measured]]]:
    """Every method and budget with its images."""
    for choice in dict.fromkeys(one.choice for one in found):
        yield choice, [one for one in found if one.choice is choice]


def bounds_table(found: Sequence[Measured]) -> Any:
    header = ["space", "rule", "method", "keep", "eps", "b / B", "d_H", "d_H / B", "paper / d_H", "paper holds"]
    header += ["unequal norms / d_H", "holds", "proof applies", "pairs broken"]
    rows = []
    for space in SPACES:
        for choice, images in _groups(found):
            own = [one.bounds[space] for one in images if space in one.bounds]
            for rule in (EVERY, ONE) if images[0].has_pivots else (ONE,):
                if not own:
                    continue
                eps = [one.eps_every if rule == EVERY else one.eps_one for one in own]
                papers, generals = zip(*(_pair(one, rule) for one in own), strict=True)
                rows.append(
                    [space, rule, choice.title, choice.keep, statistics.mean(eps)]
                    + [statistics.mean(one.smallest / one.largest for one in own)]
                    + [statistics.mean(one.distance for one in own)]
                    + [statistics.mean(one.distance / one.largest for one in own)]
                    + _slack(own, papers)
                    + _slack(own, generals)
                    + [_applies(own, eps), statistics.mean(one.broken for one in own)]
                )
    return Table("Bounds on the distance", header, rows, words=3, digits=2)


def _slack(own: Sequence[Bounds], values: Sequence[float]) -> list[float]:
    """Mean of bound / distance, and the share of the images in which the bound holds."""
    pairs = list(zip(own, values, strict=True))
    return [
        statistics.mean(value / one.distance for one, value in pairs),
        statistics.mean(float(one.holds(value)) for one, value in pairs),
    ]


def _applies(own: Sequence[Bounds], eps: Sequence[float]) -> float:
    sure = (lemma_applies(least, one.largest, one.smallest) for one, least in zip(own, eps, strict=True))
    return statistics.mean(map(float, sure))


def output_table(found: Sequence[Measured]) -> Any:
    header = ["method", "keep", "d_H", "change of the logits", "relative", "same first token", "rank correlation"]
    rows: list[list[Any]] = []
    for choice, images in _groups(found):
        own = [one for one in images if HIDDEN in one.bounds]
        if own:
            rows.append(
                [choice.title, choice.keep, *_means(own), rank_correlation(_distances(own), [o.change for o in own])]
            )
    own = [one for one in found if HIDDEN in one.bounds]
    rows.append(["all together", None, *_means(own), rank_correlation(_distances(own), [one.change for one in own])])
    return Table("Distance and output (hidden states)", header, rows, name="output", digits=2)


def _means(own: Sequence[Measured]) -> list[float]:
    return [
        statistics.mean(_distances(own)),
        statistics.mean(one.change for one in own),
        statistics.mean(one.change / one.scale for one in own),
        statistics.mean(float(one.same) for one in own),
    ]


def _distances(own: Sequence[Measured]) -> list[float]:
    return [one.bounds[HIDDEN].distance for one in own]


def image_table(found: Sequence[Measured]) -> Any:
    """Every number of every image."""

    from llava.analysis.bounds import Bounds

    names = [field.name for field in fields(Bounds)]
    header = ["method", "keep", "image", "space", *names, "change", "same"]
    rows = [
        [one.choice.title, one.choice.keep, one.image, space, *(getattr(own, name) for name in names)]
        + [one.change, one.same]
        for one in found
        for space, own in one.bounds.items()
    ]
    return Table("Every image", header, rows, words=4, name="images", on_page=False)


def _ranks(values: Sequence[float]) -> Any:
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]


def draw(pyplot: Any, found: Sequence[Measured]) -> Any:
    """Left: DART's bounds against the distance. Right: change of the output against the distance."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.5, 4.6))
    own = [one.bounds[HIDDEN] for one in found if one.has_pivots and HIDDEN in one.bounds]
    shown = {
        "paper, every pivot": (style.VERMILION, "o", [one.paper_every for one in own]),
        "paper, most similar pivot": (style.ORANGE, "^", [one.paper_one for one in own]),
        "unequal norms, every pivot": (style.BLUE, "o", [one.every for one in own]),
        "unequal norms, most similar pivot": (style.SKY, "^", [one.one for one in own]),
    }
    for label, (color, marker, values) in shown.items():
        left.scatter([one.distance for one in own], values, s=14, color=color, marker=marker, label=label, alpha=0.75)
    if own:
        most = max(one.distance for one in own)
        left.plot([0, most], [0, most], color=style.INK, linewidth=1, label="bound = distance")
    left.set(xlabel="$d_H(X, R)$ of the hidden states", ylabel="bound", xlim=(0, None), ylim=(0, None))
    left.set_title("DART: bounds on the distance")
    left.legend(fontsize=8.5)
    keeps = list(dict.fromkeys(one.choice.keep for one in found))
    for number, (choice, images) in enumerate(_groups(found)):
        usual = choice.title, style.SEQUENCE[number % len(style.SEQUENCE)], ""
        name, color = style.METHODS.get(choice.title, usual)[:2]
        points = [one for one in images if HIDDEN in one.bounds]
        right.scatter(
            _distances(points),
            [one.change for one in points],
            s=14,
            color=color,
            marker=style.MARKERS[keeps.index(choice.keep) % len(style.MARKERS)],
            alpha=0.7,
            label=f"{name} {choice.keep}",
        )
    right.set(xlabel="$d_H(X, R)$ of the hidden states", ylabel="change of the logits", yscale="log")
    right.set_title("Distance and change of the output")
    right.legend(fontsize=8.5, ncols=2)
    figure.tight_layout()
    return figure
