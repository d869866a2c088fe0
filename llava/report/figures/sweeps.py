"""Figures 5 and 6: the score as the pruned layer, and the number of pivots, change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llava.errors import BadInput
from llava.methodoptions import MethodOptions
from llava.report import budgets
from llava.report.cells import Cell, Target
from llava.report.figures import style
from llava.report.figures.bars import legend, with_pivots
from llava.report.figures.output import Drawn
from llava.report.figures.scores import (
    REMOVED,
    FromResults,
    Point,
    Records,
    axis_name,
    budget_name,
    grain,
    points,
    shared_work,
    unpruned,
)

PAPER_LAYERS, PAPER_DEPTH = (2, 5, 10, 15, 20), 32
"""Pruned layers of the paper's Figure 5 as far as its text tells, and the layers of its model."""
EMPTY = "no token"
SHALLOW = 12
"""Models of so many layers or fewer are swept layer by layer."""


def sweep_layers(n_layers: int) -> tuple[int, ...]:
    """Return the layers whose input is cut in a sweep: all of a shallow model, else those at the paper's depths.

    Args:
        n_layers: decoder layers of the model.

    Returns:
        ascending numbers between 1 and n_layers - 1.
    """
    if n_layers <= SHALLOW:
        return tuple(range(1, n_layers))
    return tuple(dict.fromkeys(max(1, round(layer * n_layers / PAPER_DEPTH)) for layer in PAPER_LAYERS))


@dataclass(frozen=True)
class PrunedLayer(FromResults):
    """Figure 5: DART's score and time over the pruned layer, one curve per budget down to no visual token at all."""

    benchmarks: tuple[str, ...] = ("pope", "textvqa")
    removed: tuple[float, ...] = REMOVED
    name: ClassVar[str] = "figure5"
    title: ClassVar[str] = "Figure 5: the pruned layer"

    def plan(self, target: Target) -> list[tuple[str, int, Cell]]:
        return [
            (curve, layer, Cell(target.benchmark(benchmark), options))
            for benchmark in self.benchmarks
            for layer in layers_of(target)
            for curve, options in self._curves(target, layer).items()
        ]

    def _curves(self, target: Target, layer: int) -> dict[str, MethodOptions]:
        """Curve -> method. With no visual pivot and less than one token per pivot nothing is kept."""
        usual = {
            budget_name(removed, target): budgets.options("dart", removed, target, layer=layer)
            for removed in self.removed
        }
        return {**usual, EMPTY: MethodOptions(method="dart", keep=1, layer=layer, set=("pivots_visual=0",))}

    def draw(self, target: Target, records: Records) -> Drawn:
        from matplotlib import pyplot

        found = points(records, self.plan(target))
        names = list(dict.fromkeys(point.record["benchmark"] for point in found))
        timed = any(np.isfinite(point.seconds) for point in found)
        figure, axes = pyplot.subplots(
            1 + timed,
            len(names),
            figsize=(style.WIDTH, 5.6 if timed else 3.8),
            squeeze=False,
            sharex=True,
            height_ratios=[2.2, 1][: 1 + timed],
        )
        layers = layers_of(target)
        curves = list(self._curves(target, layers[0]))
        for column, name in enumerate(names):
            own = [point for point in found if point.record["benchmark"] == name]
            panels = [(axes[0, column], "score", 1.0)] + [(axes[1, column], "seconds", 1000.0)] * timed
            for axis, what, scale in panels:
                for number, curve in enumerate(curves):
                    mine = [point for point in own if point.series == curve]
                    colour = style.VERMILION if curve == EMPTY else style.SEQUENCE[number % len(style.SEQUENCE)]
                    line(axis, mine, what, scale, colour, style.MARKERS[number % len(style.MARKERS)])
                full = Point("none", 0, unpruned(records)[name], unpruned(records)[name])
                axis.axhline(scale * getattr(full, what), **UNPRUNED)
                axis.set_xticks(layers)
            axes[0, column].set_title(own[0].benchmark, loc="left")
            axes[0, column].set_ylabel(axis_name(own[0].record))
            if timed and not column:
                axes[1, column].set_ylabel("ms per question")
            axes[-1, column].set_xlabel(f"pruned layer K (of {target.n_layers})")
        legend(figure, axes[0, 0])
        depth = (
            f"all {len(layers)} places for a cut"
            if len(layers) < SHALLOW
            else "the depths of the paper's 2, 5, 10, 15 and 20 of 32"
        )
        notes = [
            f"K counts from 0: the cut is made on the input of decoder layer K, so K layers see every token. "
            f"{target.name} has {target.n_layers} layers; shown are {depth}.",
            "`no token`: DART without visual pivots and with less than one token per pivot, which drops every visual "
            "token at layer K; from there the model has only what the text positions took from the image before.",
            "Lower panels: measured median per question, image encoding included. Dashed: the unpruned model. The "
            "paper prints no numbers for this figure.",
            *shared_work(found),
            *reached(found),
            *emptied(found),
            grain(found),
        ]
        return Drawn(figure, f"{self.title} (DART on {target.name})", [p.row("layer") for p in found], notes)


@dataclass(frozen=True)
class PivotCount(FromResults):
    """Figure 6: DART's score over the number of pivots, half of them visual and half text, at one budget."""

    benchmarks: tuple[str, ...] = ("pope", "mme", "textvqa")
    removed: float = REMOVED[-1]
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32)
    name: ClassVar[str] = "figure6"
    title: ClassVar[str] = "Figure 6: the number of pivots"

    def plan(self, target: Target) -> list[tuple[str, int, Cell]]:
        return [
            (
                "DART",
                count,
                Cell(target.benchmark(benchmark), with_pivots(self.removed, target, count - count // 2, count // 2)),
            )
            for benchmark in self.benchmarks
            for count in self.counts
        ]

    def draw(self, target: Target, records: Records) -> Drawn:
        from matplotlib import pyplot

        found = points(records, self.plan(target))
        names = list(dict.fromkeys(point.record["benchmark"] for point in found))
        figure, axes = pyplot.subplots(1, len(names), figsize=(style.WIDTH, 3.5), squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            own = [point for point in found if point.record["benchmark"] == name]
            places = {count: place for place, count in enumerate(self.counts)}
            axis.plot(
                [places[point.x] for point in own],
                [point.score for point in own],
                color=style.VERMILION,
                marker="o",
                label="DART",
            )
            axis.axhline(own[0].full["headline"]["value"], **UNPRUNED)
            axis.set_xticks(range(len(self.counts)), [str(count) for count in self.counts])
            axis.set_xlim(-0.4, len(self.counts) - 0.6)
            axis.set_title(own[0].benchmark, loc="left")
            axis.set_ylabel(axis_name(own[0].record))
            axis.set_xlabel("pivots (image + text)")
        legend(figure, axes[0, 0])
        notes = [
            *best_count(found),
            "Half of the pivots are visual, half text (one: visual). Every point keeps as many tokens, the "
            "visual pivots among them (`budget=exact`). A question with fewer words gives fewer text pivots. The "
            "paper prints no numbers for this figure and does not say how it split the pivots.",
            grain(found),
        ]
        rows = [point.row("pivots") for point in found]
        return Drawn(figure, f"{self.title} (DART on {target.name}, {budget_name(self.removed, target)})", rows, notes)


UNPRUNED: dict[str, Any] = {"color": style.BLACK, "linewidth": 1.3, "linestyle": (0, (4, 3)), "label": "unpruned"}


def layers_of(target: Target) -> tuple[int, ...]:
    """The layers of a sweep over the target's.

    Raises:
        BadInput: nobody knows how many layers it has.
    """
    if target.n_layers is None:
        raise BadInput(f"How many layers {target.name} has is not known: give its folder with --model-path.")
    return sweep_layers(target.n_layers)


def line(axis: Any, found: Sequence[Point], what: str, scale: float, colour: str, marker: str) -> None:
    """Draw one curve of a sweep: `what` of the points, times `scale`, over their x."""
    values = [scale * getattr(point, what) for point in found]
    axis.plot([point.x for point in found], values, color=colour, marker=marker, label=found[0].series if found else "")


def reached(found: Sequence[Point]) -> list[str]:
    """How many of the runs that keep tokens are as good as the unpruned one, and at which layers."""
    told = []
    for name in dict.fromkeys(point.benchmark for point in found):
        own = [point for point in found if point.benchmark == name and point.series != EMPTY]
        good = [point for point in own if point.relative >= 100]
        layers = ", ".join(map(str, sorted({point.x for point in good})))
        where = f" (K = {layers})" if good else ""
        told.append(f"{name}: {len(good)} of {len(own)} runs that keep tokens reach the unpruned score{where}.")
    return told


def emptied(found: Sequence[Point]) -> list[str]:
    """What is left of the score when every visual token is dropped, layer by layer."""
    told = []
    for name in dict.fromkeys(point.benchmark for point in found):
        empty = [point for point in found if point.benchmark == name and point.series == EMPTY]
        shares = ", ".join(f"{point.relative:.1f} % at K = {point.x}" for point in empty)
        if shares:
            told.append(f"{name} without any visual token: {shares} of the unpruned score.")
    return told


def best_count(found: Sequence[Point]) -> list[str]:
    """The mean over the benchmarks for every number of pivots."""
    means = {}
    for count in dict.fromkeys(point.x for point in found):
        shares = [point.relative for point in found if point.x == count]
        if len(shares) == len({point.benchmark for point in found}):
            means[count] = float(np.mean(shares))
    told = ", ".join(f"{count}: {mean:.1f} %" for count, mean in means.items())
    return [f"Mean of the unpruned score by number of pivots: {told}."] if told else []
