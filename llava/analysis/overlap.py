"""`python -m llava.analysis overlap`: how much the sets kept by different criteria and methods have in common."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llava.analysis.common import FromBenchmark, Subject

if TYPE_CHECKING:
    from llava.methodlists import Choice

NOTES = (
    "Overlap of two sets A and B kept of the same image: twice the size of the intersection over the sum of both "
    "sizes, which is the size of the intersection over `kept` where both keep as many; mean over the images.",
    "Chance level: the same for two random sets of these sizes, i.e. kept / total for equal ones.",
    "The paper says that the sets of K-norm and V-norm pivots overlap by less than 50 % on MME, and gives no chance "
    "level.",
)
K_NORM, V_NORM = "dart k_norm_max", "dart v_norm_max"
CLAIM = 0.5
"""The paper's "less than 50 %"."""


@dataclass(frozen=True)
class Overlap(FromBenchmark):
    """Compare what different criteria and methods keep of the same images."""

    methods: str = "dart,fastv,sparsevlm,random"
    """Methods, separated by commas, or `all`."""
    criteria: str = "all"
    """Pivot criteria of DART, separated by commas, or `all`: one DART each instead of the plain one; "" for that."""
    limit: int = 80
    """Images, one question each."""
    benchmark: str = "mme"
    """Benchmark whose images and questions are taken; `python -m llava.data` lists all."""


@dataclass(frozen=True)
class Pair:
    """Two methods with the same budget.

    Args:
        keep: the budget.
        a, b: their titles.
        overlap, spread: mean and standard deviation over the images.
        chance: what random sets of the same sizes have in common.
        kept: mean size of both sets.
        samples: images.
    """

    keep: int | float
    a: str
    b: str
    overlap: float
    spread: float
    chance: float
    kept: float
    samples: int


def common_share(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two (N,) bool sets: 2 |A & B| / (|A| + |B|); 0 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 0.0


def chance_share(size_a: int, size_b: int, n: int) -> float:
    """Expected overlap of two random subsets of n tokens: |A & B| is |A| |B| / n on average."""
    return 2 * size_a * size_b / (n * (size_a + size_b)) if size_a + size_b else 0.0


def pair(keep: int | float, titles: tuple[str, str], a: Sequence[Any], b: Sequence[Any]) -> Pair:
    """Compare two methods' samples of the same images."""
    overlaps = [common_share(one.mask, other.mask) for one, other in zip(a, b, strict=True)]
    chances = [chance_share(len(x.kept), len(y.kept), x.n_visual) for x, y in zip(a, b, strict=True)]
    sizes = [(len(x.kept) + len(y.kept)) / 2 for x, y in zip(a, b, strict=True)]
    return Pair(
        keep,
        *titles,
        statistics.mean(overlaps),
        statistics.pstdev(overlaps),
        statistics.mean(chances),
        statistics.mean(sizes),
        len(overlaps),
    )


def pairs(choices: Sequence[Choice], samples: Sequence[Sequence[Any]]) -> list[Pair]:
    """Every two methods of one budget, each once, budgets in the order given."""
    found = []
    for keep in dict.fromkeys(choice.keep for choice in choices if choice.keep is not None):
        own = [number for number, choice in enumerate(choices) if choice.keep == keep]
        for place, first in enumerate(own):
            for second in own[place + 1 :]:
                titles = choices[first].title, choices[second].title
                found.append(pair(keep, titles, samples[first], samples[second]))
    return found


def matrix(found: Sequence[Pair], keep: int | float) -> tuple[list[str], np.ndarray]:
    """Titles and the symmetric matrix of overlaps of one budget; 1 on the diagonal."""
    titles = list(dict.fromkeys(title for pair in found if pair.keep == keep for title in (pair.a, pair.b)))
    values = np.eye(len(titles))
    for pair in found:
        if pair.keep == keep:
            a, b = titles.index(pair.a), titles.index(pair.b)
            values[a, b] = values[b, a] = pair.overlap
    return titles, values


def verdicts(found: Sequence[Pair]) -> list[str]:
    """What the numbers say of the paper's claim, one sentence for each budget that has both criteria."""
    told = []
    for one in found:
        if {one.a, one.b} == {K_NORM, V_NORM}:
            holds = "less" if one.overlap < CLAIM else "not less"
            told.append(
                f"K-norm and V-norm pivots, {one.kept:.0f} kept: overlap {one.overlap:.1%} on average (chance "
                f"{one.chance:.1%}), {holds} than the paper's 50 %."
            )
    return told


def overlap(config: Overlap) -> None:
    """Run the methods, compare them, write and show what was found."""
    from llava.analysis import collect, output
    from llava.errors import ConfigurationError

    subject = Subject(config)
    questions = config.questions(subject.processor.family)
    choices = [choice for choice in subject.usable(config.chosen()) if choice.keep is not None]
    inputs = (collect.asked(subject.processor, part) for part in collect.batches(questions, config.batch_size))
    choices, samples = collect.kept_by_all(subject.model, inputs, choices)
    found = pairs(choices, samples)
    if not found:
        raise ConfigurationError(
            "An overlap needs two methods whose kept tokens have a place in the image: type for example "
            "--methods dart,random."
        )
    tables = []
    for keep in dict.fromkeys(one.keep for one in found):
        titles, values = matrix(found, keep)
        rows = [[title, *map(float, row)] for title, row in zip(titles, values, strict=True)]
        name = f"matrix_{keep}".replace(".", "_")
        tables.append(output.Table(f"Overlap at {keep} asked for", ["method", *titles], rows, name=name))
    header = ["method", "other", "keep", "kept", "overlap", "standard deviation", "chance level"]
    listed = [
        [p.a, p.b, p.keep, p.kept, p.overlap, p.spread, p.chance] for p in sorted(found, key=lambda p: -p.overlap)
    ]
    finding = output.Finding(
        name="overlap",
        title="Overlap between kept sets",
        settings=config.settings(),
        samples=len(questions),
        tables=[output.Table("All pairs, most alike first", header, listed, words=2), *tables],
        notes=[*NOTES, *verdicts(found)],
        facts={"pairs": [vars(one) for one in found]},
        draw=lambda pyplot: _draw(pyplot, found),
    )
    subject.finish(finding)


def _draw(pyplot: Any, found: Sequence[Pair]) -> Any:
    keeps = list(dict.fromkeys(one.keep for one in found))
    n = len(matrix(found, keeps[0])[0])
    side = max(3.6, 0.58 * n + 1.4)
    size = (side * len(keeps) + 0.9, side)
    figure, axes = pyplot.subplots(1, len(keeps), figsize=size, squeeze=False, layout="constrained")
    for axis, keep in zip(axes[0], keeps, strict=True):
        titles, values = matrix(found, keep)
        chance = max(one.chance for one in found if one.keep == keep)
        shades = axis.imshow(values, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(titles)), titles, rotation=45, ha="right")
        axis.set_yticks(range(len(titles)), titles)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.set_title(f"{keep} tokens asked for (two random sets: {chance:.0%})")
        for (row, column), value in np.ndenumerate(values):
            if row != column:
                shade = "white" if value > 0.55 else "black"
                axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(shades, ax=list(axes[0]), shrink=0.7, label="overlap (numbers in %)")
    return figure
