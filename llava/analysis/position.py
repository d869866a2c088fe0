"""`python -m llava.analysis position`: where in the image the kept tokens are, and whether a method favours the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llava.analysis.common import FromBenchmark, Subject

if TYPE_CHECKING:
    from llava.methodlists import Choice

BINS = 24
"""Parts of the reading order, for images whose tokens stand in no plain grid."""
ACROSS = 5  # methods side by side in the picture
SURE = 1.96  # standard errors on either side of a mean that hold 95 % of it
NOTES = (
    "Position: reading order of the image, row by row from the top left; 0 is its first token, 1 its last.",
    "`kept`: visual tokens in the last layer; methods that cut several times end below what was asked for.",
    "Shares: of the kept tokens, mean over the images; a method without a preference has 1/3 in every third and a mean "
    "position of 0.5. The interval is the 95 % confidence interval of the mean share of the last third.",
    "In the mini sets things and signs stand anywhere, so what the images show favours no third; photographs may.",
    "The paper says that FastV favours the end of the image, whose tokens are nearest to the text.",
)


@dataclass(frozen=True)
class Position(FromBenchmark):
    """Count where in the image the kept tokens are."""

    methods: str = "dart,fastv,sparsevlm,visionzip,random"
    """Methods, separated by commas, or `all`."""


@dataclass(frozen=True)
class Bias:
    """Where one method's kept tokens are.

    Args:
        thirds: share of the kept tokens in the first, middle and last third, mean over the images.
        spread: standard deviation of the share of the last third over the images.
        margin: half the 95 % confidence interval of its mean.
        mean_position: mean over the images of the mean position of kept tokens, in (0, 1).
        histogram: share of the kept tokens in each part of the reading order, mean over the images.
    """

    thirds: tuple[float, float, float]
    spread: float
    margin: float
    mean_position: float
    histogram: tuple[float, ...]

    def verdict(self, title: str) -> str:
        """One sentence."""
        last = self.thirds[2]
        if abs(last - 1 / 3) <= self.margin:
            return f"{title}: no preference for the last third beyond chance ({last:.1%} of its tokens)."
        how = "favours" if last > 1 / 3 else "avoids"
        return f"{title}: {how} the last third ({last:.1%} ± {self.margin:.1%} of its tokens instead of 33.3 %)."


def positions(kept: np.ndarray, n: int) -> np.ndarray:
    """Middle of each kept token's place in the reading order, in (0, 1)."""
    return (np.asarray(kept) + 0.5) / n


def shares(kept: np.ndarray, n: int, parts: int) -> np.ndarray:
    """(parts,) share of the kept tokens in each of `parts` equal parts of the reading order."""
    counts = np.bincount(np.minimum((positions(kept, n) * parts).astype(int), parts - 1), minlength=parts)
    return counts / max(1, len(kept))


def bias(samples: Sequence[tuple[np.ndarray, int]], bins: int = BINS) -> Bias:
    """Where kept tokens are.

    Args:
        samples: (kept offsets, tokens of the image) per image.
        bins: parts of the histogram.
    """
    thirds = np.array([shares(kept, n, 3) for kept, n in samples])
    last = thirds[:, 2].tolist()
    first, middle, final = thirds.mean(0).tolist()
    return Bias(
        thirds=(first, middle, final),
        spread=statistics.pstdev(last),
        margin=SURE * statistics.stdev(last) / len(last) ** 0.5 if len(last) > 1 else float("inf"),
        mean_position=statistics.mean(float(positions(kept, n).mean()) for kept, n in samples),
        histogram=tuple(np.mean([shares(kept, n, bins) for kept, n in samples], 0).tolist()),
    )


def frequencies(samples: Sequence[tuple[np.ndarray, int]], grid: tuple[int, int]) -> np.ndarray:
    """(rows, columns) in how many of the images a cell is kept, relative to the mean over all cells."""
    counts = np.zeros(grid[0] * grid[1])
    for kept, _ in samples:
        counts[kept] += 1
    return (counts / counts.mean()).reshape(grid)


def position(config: Position) -> None:
    """Run the methods, count, write and show what was found."""
    from llava.analysis import collect, output
    from llava.report.overlay_boards import alike, boards

    subject = Subject(config)
    questions = config.questions(subject.processor.family)
    choices = subject.usable(config.chosen())
    grids: list[Any] = []

    def prepared() -> Any:
        for part in collect.batches(questions, config.batch_size):
            inputs = collect.asked(subject.processor, part)
            grids.append(alike(boards(subject.model, subject.processor, inputs)))
            yield inputs

    choices, samples = collect.kept_by_all(subject.model, prepared(), choices)
    grid = grids[0] if len(set(grids)) == 1 else None
    places = [[(sample.kept, sample.n_visual) for sample in own] for own in samples]
    found = [bias(own, grid[0] if grid else BINS) for own in places]
    header = ["method", "keep", "kept", "first third", "middle third", "last third", "interval", "standard deviation"]
    header += ["last third / (1/3)", "mean position"]
    rows = [
        [choice.title, choice.keep, statistics.mean(len(sample.kept) for sample in own), *one.thirds]
        + [f"± {one.margin:.3f}", one.spread, 3 * one.thirds[2], one.mean_position]
        for choice, one, own in zip(choices, found, samples, strict=True)
    ]
    part_header = ["method", "keep", *(f"part {number}" for number in range(1, len(found[0].histogram) + 1))]
    histogram = [[choice.title, choice.keep, *one.histogram] for choice, one in zip(choices, found, strict=True)]
    finding = output.Finding(
        name="position",
        title="Where in the image the kept tokens are",
        settings=config.settings(),
        samples=len(questions),
        tables=[
            output.Table("Thirds of the image", header, rows),
            output.Table(
                "Share of the kept tokens in each row of the image" if grid else "Share in each part of the image",
                part_header,
                histogram,
                name="histogram",
                on_page=False,
            ),
        ],
        notes=[*NOTES, *(one.verdict(choice.label) for choice, one in zip(choices, found, strict=True))],
        facts={"grid": grid},
        draw=lambda pyplot: _draw(pyplot, choices, found, places, grid),
    )
    subject.finish(finding)


def _draw(
    pyplot: Any, choices: Sequence[Choice], found: Sequence[Bias], places: Sequence[Any], grid: tuple[int, int] | None
) -> Any:
    """For every method how often each cell is kept, and the same by rows."""
    from llava.report.figures import style

    down = -(-len(choices) // ACROSS)
    across = -(-len(choices) // down)
    widths = (3, 1.1) * across if grid else (1,) * across
    figure, axes = pyplot.subplots(
        down,
        len(widths),
        figsize=(2.9 * across + 1.0, 2.6 * down + 0.3),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    widest = max(2.0, 1.05 * max(max(one.histogram) for one in found) * len(found[0].histogram))
    image = None
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (choice, one, own) in enumerate(zip(choices, found, places, strict=True)):
        row, column = divmod(number, across)
        bars = axes[row, 2 * column + 1 if grid else column]
        bars.set_axis_on()
        bars.barh(range(len(one.histogram)), np.array(one.histogram) * len(one.histogram), 1.0, color=style.BLUE)
        bars.axvline(1, color=style.INK, linewidth=1)
        bars.set(xlim=(0, widest), ylim=(len(one.histogram) - 0.5, -0.5), yticks=[])
        bars.tick_params(labelsize=8)
        bars.grid(False)
        titled = bars
        if grid:
            titled = axes[row, 2 * column]
            titled.set_axis_on()
            image = titled.imshow(frequencies(own, grid), cmap="RdBu_r", vmin=0, vmax=2, aspect="auto")
            titled.set(xticks=[], yticks=[])
            titled.grid(False)
        titled.set_title(choice.label)
        titled.set_xlabel(f"last third: {one.thirds[2]:.0%}", fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.7, label="how often kept, 1 is the mean")
    return figure
