"""Figures 2 and 7: grouped bars of scores relative to the unpruned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llava.methodoptions import MethodOptions
from llava.report import budgets
from llava.report.cells import Cell, Target
from llava.report.figures import style
from llava.report.figures.output import Drawn
from llava.report.figures.scores import (
    REMOVED,
    FromResults,
    Point,
    Records,
    budget_name,
    grain,
    points,
)

PRINTED = "LLaVA-1.5-7B"
LEGEND = 0.32  # inches above the panels
GROUP = 0.8  # share of a benchmark's place that its bars fill


@dataclass(frozen=True)
class AgainstRandom(FromResults):
    """Figure 2: FastV and SparseVLM against tokens drawn at random, at the smallest budget.

    Beside ours stand the paper's FastV and SparseVLM (its Table 1 at 64 tokens); its random bars are in the picture of
    the paper only and are not drawn.
    """

    benchmarks: tuple[str, ...] = (
        "gqa",
        "mmbench",
        "mmbench_cn",
        "mme",
        "pope",
        "scienceqa",
        "vqav2",
        "textvqa",
        "vizwiz",
        "ocrbench",
    )
    removed: float = REMOVED[-1]
    methods: tuple[str, ...] = ("random", "fastv", "sparsevlm")
    name: ClassVar[str] = "figure2"
    title: ClassVar[str] = "Figure 2: methods that score by attention, against random tokens"

    def plan(self, target: Target) -> list[tuple[str, str, Cell]]:
        return [
            (method, target.name, Cell(target.benchmark(benchmark), budgets.options(method, self.removed, target)))
            for benchmark in self.benchmarks
            for method in self.methods
        ]

    def draw(self, target: Target, records: Records) -> Drawn:
        from matplotlib import pyplot

        found = points(records, self.plan(target))
        ours = {(point.record["benchmark"], point.series): point.relative for point in found}
        titles = {point.record["benchmark"]: point.benchmark for point in found}
        columns = [target.benchmark(name) for name in self.benchmarks]
        names = [name for name in columns if name in titles]
        paper = {(target.benchmark(name), method): value for (name, method), value in self._paper().items()}
        asked = budget_name(self.removed, target)
        panels = [(f"{target.name}, {asked} (measured here)", ours)]
        if paper:
            panels.append((f"{PRINTED}, {self._printed} tokens (printed in the paper's Table 1)", paper))
        figure, axes = pyplot.subplots(len(panels), 1, figsize=(style.WIDTH, 2.8 * len(panels) + 0.4), squeeze=False)
        for axis, (title, values) in zip(axes[:, 0], panels, strict=True):
            series = [method for method in self.methods if any(method == own for _, own in values)]
            grouped(axis, names, series, values)
            axis.set_title(title, loc="left")
            axis.set_xticks(range(len(names)), [broken(titles[name]) for name in names])
        legend(figure, axes[0, 0])
        ours_rows = [{"source": "ours", **point.row("model")} for point in found]
        blank = dict.fromkeys(ours_rows[0], None)
        printed = [
            {
                **blank,
                "source": "paper",
                "benchmark": titles[name],
                "series": method,
                "model": PRINTED,
                "unit": "",
                "relative_percent": value,
                "run": "Table 1",
            }
            for (name, method), value in paper.items()
            if name in titles
        ]
        notes = [*verdict(found, self.methods), *self._notes(bool(paper)), grain(found)]
        return Drawn(figure, self.title, [*ours_rows, *printed], notes)

    @property
    def _printed(self) -> int | None:
        """Tokens of the rows of Table 1 at this budget, if it has any."""
        return dict(budgets.PAIRS).get(self.removed)

    def _paper(self) -> dict[tuple[str, str], float]:
        """(column's benchmark, method) -> percent of the unpruned score, from Table 1."""
        from llava.report import paper

        rows = [row for row in paper.rows("1") if row.model == PRINTED]
        whole = next(row.metrics for row in rows if row.setting == paper.UPPER_BOUND)
        return {
            (paper.COLUMNS[column][1], row.ours): 100 * score / upper
            for row in rows
            if row.setting == f"retain_{self._printed}" and row.ours in self.methods
            for column, score in row.metrics.items()
            if score is not None and (upper := whole[column]) and paper.COLUMNS[column][1] in self.benchmarks
        }

    def _notes(self, beside: bool) -> list[str]:
        notes = [
            "The same budget is not the same cost: `kept last layer` and `mean per layer` say what each method really "
            "kept (random keeps as many as DART, 4 more than asked; SparseVLM cuts at several layers)."
        ]
        if beside:
            notes.append(
                "The paper prints numbers for FastV and SparseVLM only; its bars for random tokens have no numbers and "
                "are not redrawn. Other model, other data: compare the order of the bars, not their height."
            )
        return notes


@dataclass(frozen=True)
class PivotSource(FromResults):
    """Figure 7: eight pivots from image and text, from the image only, from the text only."""

    benchmarks: tuple[str, ...] = ("gqa", "mmbench", "mme", "pope", "scienceqa", "vqav2", "textvqa")
    removed: float = REMOVED[-1]
    pivots: int = 8
    name: ClassVar[str] = "figure7"
    title: ClassVar[str] = "Figure 7: where the pivots come from"

    @property
    def sources(self) -> dict[str, tuple[int, int]]:
        """Series -> (visual pivots, text pivots)."""
        half = self.pivots // 2
        return {
            "image and text": (self.pivots - half, half),
            "image only": (self.pivots, 0),
            "text only": (0, self.pivots),
        }

    def plan(self, target: Target) -> list[tuple[str, str, Cell]]:
        return [
            (
                series,
                f"{visual} visual, {text} text",
                Cell(target.benchmark(benchmark), with_pivots(self.removed, target, visual, text)),
            )
            for benchmark in self.benchmarks
            for series, (visual, text) in self.sources.items()
        ]

    def draw(self, target: Target, records: Records) -> Drawn:
        from matplotlib import pyplot

        found = points(records, self.plan(target))
        values = {(point.record["benchmark"], point.series): point.relative for point in found}
        titles = {point.record["benchmark"]: point.benchmark for point in found}
        names = [name for name in map(target.benchmark, self.benchmarks) if name in titles]
        series = tuple(self.sources)
        if len(names) > 1:
            values |= {("mean", one): mean for one, mean in means(found, series)[1].items()}
            titles["mean"] = "mean"
        figure, axis = pyplot.subplots(figsize=(style.WIDTH, 3.7))
        shown = [*names, *(["mean"] if "mean" in titles else [])]
        grouped(axis, shown, series, values)
        axis.set_xticks(range(len(shown)), [broken(titles[name]) for name in shown])
        if "mean" in titles:
            axis.axvspan(len(names) - 0.5, len(names) + 0.5, color=style.PALE, alpha=0.5, zorder=0, linewidth=0)
        asked = budget_name(self.removed, target)
        axis.set_title(f"DART on {target.name}, {asked}, {self.pivots} pivots", loc="left")
        legend(figure, axis)
        notes = [
            *verdict(found, series),
            "Every bar keeps exactly the same number of tokens (`budget=exact`). A question with fewer words than text "
            "pivots asked for gives fewer of them. The paper prints no numbers for this figure.",
            grain(found),
        ]
        return Drawn(figure, self.title, [point.row("pivots") for point in found], notes)


def with_pivots(removed: float, target: Target, visual: int, text: int) -> MethodOptions:
    """DART with other pivots, at exactly the same number of tokens whatever their number."""
    pivots = (f"pivots_visual={visual}", f"pivots_text={text}", "budget=exact")
    return budgets.options("dart", removed, target, set=pivots)


def grouped(axis: Any, names: Sequence[str], series: Sequence[str], values: Mapping[tuple[str, str], float]) -> None:
    """Draw one bar per series beside each other for every name, and the unpruned model as a line at 100 %."""
    width = GROUP / len(series)
    for number, one in enumerate(series):
        label, colour, _ = style.METHODS.get(one, (one, (style.ORANGE, style.BLUE, style.GREEN)[number % 3], ""))
        places = np.arange(len(names)) - GROUP / 2 + width * (number + 0.5)
        heights = [values.get((name, one), np.nan) for name in names]
        bars = axis.bar(places, heights, width * 0.94, color=colour, label=label, linewidth=0)
        style.bar_label(axis, bars)
    axis.axhline(100, color=style.BLACK, linewidth=1.2, linestyle=(0, (4, 3)), label="unpruned", zorder=1)
    known = [value for value in values.values() if np.isfinite(value)]
    axis.set_ylim(0, max(112, 1.1 * max(known, default=100)))
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="x", visible=False)
    axis.set_ylabel("score, % of unpruned")


def means(found: Sequence[Point], series: Sequence[str]) -> tuple[int, dict[str, float]]:
    """Return over how many benchmarks all series can be averaged, and series -> mean; nothing without a benchmark."""
    by_name: dict[str, dict[str, float]] = {}
    for point in found:
        by_name.setdefault(point.benchmark, {})[point.series] = point.relative
    whole = [
        scores for scores in by_name.values() if set(series) <= set(scores) and not np.isnan([*scores.values()]).any()
    ]
    return len(whole), {one: float(np.mean([scores[one] for scores in whole])) for one in series if whole}


def verdict(found: Sequence[Point], series: Sequence[str]) -> list[str]:
    """One sentence with the mean of every series over the benchmarks that all of them have."""
    number, found_means = means(found, series)
    ranked = sorted(found_means.items(), key=lambda item: -item[1])
    told = ", ".join(f"{style.method_name(one)} {value:.1f} %" for one, value in ranked)
    return [f"Mean over {number} benchmark{'s' * (number > 1)}: {told} of the unpruned score."] if number else []


def legend(figure: Any, axis: Any) -> None:
    """Write one legend above all panels, and use the rest of the figure for them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels))
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, 0, 1, 1 - LEGEND / height))


def broken(title: str) -> str:
    """A benchmark's title that fits below its bars."""
    for space, last in ((" (", "("), ("-", "")):
        if space in title and len(title) > 8:
            before, _, after = title.partition(space)
            return f"{before}{space.strip(' (')}\n{last}{after}"
    return title
