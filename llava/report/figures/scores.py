"""From results to plotted points: the score, what the run was allowed to keep, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.errors import BadData
from llava.methodoptions import MethodOptions
from llava.reduction import released
from llava.report import budgets
from llava.report.cells import Cell, Target
from llava.report.figures.output import Drawn, write

if TYPE_CHECKING:
    from llava.report.store import Store

Record = Mapping[str, Any]
Records = Mapping[Cell, Record]
NONE = MethodOptions(method="none")
REMOVED = tuple(removed for removed, _ in budgets.PAIRS)
"""Fractions of the visual tokens that the paper's comparisons remove, from the least to the most."""


def budget_name(removed: float, target: Target) -> str:
    """A budget as one says it: `64 tokens` where the paper counts tokens, else `-88.9 %`."""
    keep = dict(budgets.PAIRS).get(removed)
    return f"{keep} tokens" if keep and target.rule == released.LLAVA else f"\N{MINUS SIGN}{100 * removed:.1f} %"


@dataclass(frozen=True)
class Point:
    """One run as plotted: a value on the x axis and the run's record, with the unpruned record of its benchmark."""

    series: str
    x: Any
    record: Record
    full: Record

    @property
    def benchmark(self) -> str:
        return self.record["title"]

    @property
    def score(self) -> float:
        return self.record["headline"]["value"]

    @property
    def relative(self) -> float:
        """Score in percent of the unpruned score; not a number when that is zero."""
        whole = self.full["headline"]["value"]
        return 100 * self.score / whole if whole else math.nan

    @property
    def seconds(self) -> float:
        """Median seconds per question: opening the image, prefill, decoding."""
        total = self.record["timings"].get("total") if self.record["timings"] else None
        return total["median_s"] if total else math.nan

    def row(self, x_name: str) -> dict[str, Any]:
        """The point as a row of the table of plotted numbers."""
        counts, head = self.record["accounting"], self.record["headline"]
        return {
            "benchmark": self.benchmark,
            "series": self.series,
            x_name: self.x,
            "score": float(self.score),
            "unit": " ".join(filter(None, (head["name"], head["unit"]))),
            "relative_percent": self.relative,
            "asked": counts.get("asked"),
            "kept_last_layer": counts.get("final"),
            "mean_per_layer": counts.get("mean_over_layers"),
            "ms_per_question": 1000 * self.seconds,
            "questions": self.record["samples"]["scored"],
            "run": self.record.get("run_name", ""),
        }


class FromResults:
    """Base of the figures that are drawn from result files only."""

    name: ClassVar[str]
    title: ClassVar[str]
    benchmarks: tuple[str, ...]
    """The columns it shows."""

    def plan(self, target: Target) -> Sequence[tuple[str, Any, Cell]]:
        """(series, place along the axis, run) of every point."""
        raise NotImplementedError

    def cells(self, target: Target) -> list[Cell]:
        """The runs it needs: the unpruned model's, and those of its points."""
        return [*unpruned_cells(self.benchmarks, target), *(cell for _, _, cell in self.plan(target))]

    def draw(self, target: Target, records: Records) -> Drawn:
        """Draw the runs that are there."""
        raise NotImplementedError

    def make(self, store: Store, output: Path) -> list[Path]:
        """Write the figure's files into a folder.

        Raises:
            BadData: results are missing; the message says what to type. After `--run`, runs that this model cannot do
                are left out of the picture and named below it.
        """
        from llava.report.artefacts import missing_advice
        from llava.report.figures import style

        cells = self.cells(store.target)
        records = store.records(cells)
        missing = [cell for cell in cells if cell not in records]
        if missing and not (store.source.run and records):
            raise BadData(f"{self.name} is not drawn: {missing_advice(store, cells, self.name)}")
        with style.drawing():
            drawn = self.draw(store.target, records)
            notes = [*drawn.notes, *left_out(missing), setting(list(records.values()))]
            facts = {"artefact": self.name, **drawn.facts}
            return write(Drawn(drawn.picture, drawn.title, drawn.rows, notes, facts), output, self.name)


def unpruned_cells(benchmarks: Sequence[str], target: Target) -> list[Cell]:
    """The unpruned runs of some benchmarks."""
    return [Cell(target.benchmark(name), NONE) for name in benchmarks]


def unpruned(records: Records) -> dict[str, Record]:
    """Benchmark -> its unpruned run."""
    return {cell.benchmark: record for cell, record in records.items() if cell.options == NONE}


def points(records: Records, plan: Sequence[tuple[str, Any, Cell]]) -> list[Point]:
    """The planned points (series, x, cell) whose run is there, and the unpruned one of its benchmark too."""
    full = unpruned(records)
    return [
        Point(series, x, records[cell], full[cell.benchmark])
        for series, x, cell in plan
        if cell in records and cell.benchmark in full and records[cell]["headline"]["value"] is not None
    ]


def left_out(missing: Sequence[Cell]) -> list[str]:
    """A sentence on the runs that are not in the picture."""
    if not missing:
        return []
    names = ", ".join(f"{cell.benchmark} {cell.options.label}" for cell in missing)
    return [f"Left out, since this model cannot run it or the data is missing: {names}."]


def setting(records: Sequence[Record]) -> str:
    """A sentence on model, data, machine and versions."""
    from llava.report import summary

    return f"Measured with {summary.setting(records)}."


def grain(found: Sequence[Point]) -> str:
    """A sentence on how much one answer weighs."""
    fewest = min(point.record["samples"]["scored"] for point in found)
    return (
        f"With {fewest} questions one answer is worth about {100 / fewest:.1f} % of a score; differences of a few "
        "answers mean little."
    )


def shared_work(found: Sequence[Point]) -> list[str]:
    """A sentence on times that are not those of questions computed in full."""
    records = [record for point in found for record in (point.record, point.full)]
    sharing = sum(bool(record.get("reuse")) for record in records)
    if not sharing:
        return []
    part = "All" if sharing == len(records) else "Some"
    return [
        f"{part} of these runs shared work between questions about one image, so their times are not those of a single "
        "question: compute them again with --reuse 0 to compare methods."
    ]


def axis_name(record: Record) -> str:
    """Benchmark, metric and unit, for the y axis of raw scores."""
    head = record["headline"]
    name = head["name"].replace("_", " ")
    name = "score" if name.lower() == record["title"].lower() else name.capitalize() if len(name) < 4 else name
    return f"{name} ({head['unit']})" if head["unit"] else name
