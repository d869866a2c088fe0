"""Figure 4: score against measured time, one point per method and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llava.errors import BadData
from llava.report import budgets
from llava.report.cells import Cell, Target
from llava.report.figures import style
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

SIZES = (9.5, 7.0, 4.5)
"""Marker sizes from the largest to the smallest budget."""


@dataclass(frozen=True)
class ScoreAgainstTime(FromResults):
    """Figure 4: the methods' scores over seconds per question; the paper's latency is measured on LLaVA-NeXT-7B."""

    benchmarks: tuple[str, ...] = ("pope", "mme", "textvqa")
    removed: tuple[float, ...] = REMOVED
    methods: tuple[str, ...] = ("random", "sparsevlm", "mustdrop", "fastv", "dart")
    name: ClassVar[str] = "figure4"
    title: ClassVar[str] = "Figure 4: score against measured latency"

    def plan(self, target: Target) -> list[tuple[str, str, Cell]]:
        return [
            (
                method,
                budget_name(removed, target),
                Cell(target.benchmark(benchmark), budgets.options(method, removed, target)),
            )
            for benchmark in self.benchmarks
            for method in self.methods
            for removed in self.removed
        ]

    def draw(self, target: Target, records: Records) -> Drawn:
        from matplotlib import pyplot
        from matplotlib.lines import Line2D

        found = points(records, self.plan(target))
        found += [Point("none", "all", full, full) for full in unpruned(records).values()]
        found = [point for point in found if np.isfinite(point.seconds)]
        if not found:
            raise BadData("figure4 needs measured times, and these results have none: run again with --run --fresh.")
        names = list(dict.fromkeys(point.record["benchmark"] for point in found))
        sizes = {budget_name(removed, target): size for removed, size in zip(self.removed, SIZES, strict=False)}
        figure, axes = pyplot.subplots(1, len(names), figsize=(style.WIDTH, 4.3), squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            own = [point for point in found if point.record["benchmark"] == name]
            for method in self.methods:
                curve(axis, [point for point in own if point.series == method], sizes)
            for point in own:
                if point.series == "none":
                    axis.axhline(point.score, color=style.BLACK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
                    axis.plot(1000 * point.seconds, point.score, marker="*", color=style.BLACK, markersize=13)
            axis.set_title(own[0].benchmark, loc="left")
            axis.set_ylabel(axis_name(own[0].record))
            axis.set_xlabel("ms per question (measured)")
            axis.margins(0.09)
        shown = ["none", *self.methods]
        handles = [
            Line2D([], [], color=colour, marker=marker, label=label, markersize=12 if name == "none" else 7)
            for name, (label, colour, marker) in ((n, style.METHODS[n]) for n in shown)
        ]
        figure.legend(handles=handles, loc="upper center", ncols=len(shown), columnspacing=1.3)
        dots = [
            Line2D([], [], color=style.GREY, marker="o", linestyle="", markersize=size, label=f"{name} asked for")
            for name, size in sizes.items()
        ]
        figure.legend(handles=dots, loc="lower center", ncols=len(dots))
        figure.tight_layout(rect=(0, 0.07, 1, 0.93))
        notes = [
            *shared_work(found),
            f"Time: median over the batches of a run on {found[0].record['device']}, per question: opening the image, "
            "image encoding, prefill, decoding; batch "
            f"{'/'.join(map(str, batch_sizes(found)))}. Runs that shared the machine with others are slower than they "
            "should be; measure on an idle one. Dashed: the unpruned score.",
            "The paper does not say which data sets it shows and prints no numbers for this figure; its model is "
            "LLaVA-NeXT-7B.",
            grain(found),
        ]
        return Drawn(figure, f"{self.title} ({target.name})", [point.row("budget") for point in found], notes)


def curve(axis: Any, found: Sequence[Point], sizes: Mapping[str, float]) -> None:
    """Draw the points of one method, joined from the largest budget to the smallest."""
    if not found:
        return
    _, colour, marker = style.METHODS[found[0].series]
    axis.plot([1000 * p.seconds for p in found], [p.score for p in found], color=colour, linewidth=1.4, alpha=0.75)
    for point in found:
        size = sizes.get(point.x, min(SIZES))
        axis.plot(1000 * point.seconds, point.score, marker=marker, color=colour, markersize=size, linestyle="")


def batch_sizes(found: Sequence[Point]) -> list[int]:
    """The batch sizes of the runs."""
    return sorted({size for point in found for size in point.record["timings"].get("batch_size", [])})
