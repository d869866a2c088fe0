"""What the claims are judged by: averages over benchmarks, times, sweeps over one option; all from results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llava.report import paper
from llava.report.budgets import options
from llava.report.cells import Cell, decoder_layers
from llava.report.store import Record, Store, question_set
from llava.report.tables.costs import Cost, bench_costs, runner_costs

NINTH = 0.889
"""Fraction removed where about 11.1 % of the tokens are left."""


@dataclass(frozen=True)
class Timing:
    """Speed-ups over the unpruned model, and where they were measured; None was not measured."""

    where: str
    total: float | None
    prefill: float | None

    def __str__(self) -> str:
        known = ((self.total, "total"), (self.prefill, "prefill"))
        return ", ".join(f"{value:.2f}x {what}" for value, what in known if value is not None) + f" ({self.where})"


@dataclass(frozen=True)
class Averages:
    """Relative averages of several methods over the benchmarks that all of them have results of."""

    values: Mapping[str, float]
    benchmarks: Sequence[str]
    questions: int

    @property
    def over(self) -> str:
        return f"over {len(self.benchmarks)} benchmarks, {self.questions} questions"


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its options, its score relative to the unpruned one (percent), the tokens kept."""

    benchmark: str
    options: Mapping[str, Any]
    relative: float
    kept: float
    record: Record = field(repr=False)


class Evidence:
    """Everything the claims look at, out of one store."""

    def __init__(self, store: Store):
        self.store, self.target = store, store.target

    @cached_property
    def _benched(self) -> list[Cost]:
        return [cost for costs in bench_costs(self.store)[0].values() for cost in costs]

    # -------------------------------------------------------------------------------------------------------- averages

    def averages(self, table: str, removed: float, methods: Mapping[str, tuple[str, tuple[str, ...]]]) -> Averages:
        """Return the relative averages of methods at one budget over the columns of a table.

        Args:
            methods: label -> (our method, options to set); a label without any result is left out.
        """
        columns = paper.raw(table)["columns"]
        none = self._scores(columns, "none", 0, ())
        found = {label: self._scores(columns, name, removed, set_) for label, (name, set_) in methods.items()}
        found = {label: scores for label, scores in found.items() if scores}
        shared = [column for column in columns if column in none and all(column in s for s in found.values())]
        if not found or not shared:
            return Averages({}, [], 0)
        values = {
            label: statistics.fmean(100 * scores[column][0] / none[column][0] for column in shared)
            for label, scores in found.items()
        }
        return Averages(values, shared, sum(none[column][1] for column in shared))

    def _scores(
        self, columns: Sequence[str], method: str, removed: float, more: tuple[str, ...]
    ) -> dict[str, tuple[float, int]]:
        given = options(method, removed, self.target, **({"set": more} if more else {}))
        cells = {column: Cell(self.target.benchmark(paper.COLUMNS[column][1]), given) for column in columns}
        records = self.store.records(cells.values())
        return {
            column: (records[cell]["headline"]["value"], records[cell]["samples"]["scored"])
            for column, cell in cells.items()
            if cell in records and records[cell]["headline"]["value"]
        }

    # ----------------------------------------------------------------------------------------------------------- times

    def pope(self, method: str) -> Record | None:
        """Return the POPE result of a method at 11.1 % of the tokens (all tokens for "none")."""
        given = options(method, 0 if method == "none" else NINTH, self.target)
        return self.store.get(Cell(paper.COLUMNS["pope"][1], given))

    def timings(self, method: str) -> list[Timing]:
        """Return the speed-ups of a method: over POPE, and by `llava.bench`."""
        found = []
        record, whole = self.pope(method), self.pope("none")
        if record and whole:
            cost = runner_costs({"none": whole, method: record})[0][1]
            where = f"{self.target.name}, POPE, {record['samples']['scored']} questions, {record['device']}"
            found.append(Timing(where, cost.speedup_total, cost.speedup_prefill))
        found += [
            Timing(f"{cost.source}, {cost.tokens or 0:.0f} tokens left", cost.speedup_total, cost.speedup_prefill)
            for cost in self._benched
            if cost.method == method and not cost.is_slice
        ]
        return [timing for timing in found if timing.total is not None or timing.prefill is not None]

    def selection_seconds(self, method: str) -> dict[str, float]:
        """Return where -> the time that choosing took, per prompt."""
        own = [r["accounting"].get("selection_seconds") for r in self.store.all(method)]
        known = [seconds for seconds in own if seconds is not None]
        found = {f"{self.target.name}, median of {len(known)} runs": statistics.median(known)} if known else {}
        benched = [cost for cost in self._benched if cost.method == method]
        return found | {cost.source: cost.selection_s for cost in benched if cost.selection_s is not None}

    # ---------------------------------------------------------------------------------------------------------- sweeps

    @cached_property
    def dart(self) -> list[Point]:
        """All results of DART relative to the unpruned ones of the same questions, the newest of each setting."""
        whole = {(r["benchmark"], question_set(r)): r["headline"]["value"] for r in reversed(self.store.all("none"))}
        points: dict[str, Point] = {}
        for record in self.store.all("dart"):
            score, full = record["headline"]["value"], whole.get((record["benchmark"], question_set(record)))
            given = record["method"].get("options", {})
            if full and score is not None:
                kept = record["accounting"].get("final") or 0
                point = Point(record["benchmark"], given, 100 * score / full, kept, record)
                points.setdefault(f"{record['benchmark']} {question_set(record)} {sorted(given.items())}", point)
        return list(points.values())

    def swept(self, *names: str) -> list[list[Point]]:
        """Return groups of DART's results that differ in the options `names` only; groups of one are left out."""
        groups: dict[str, list[Point]] = {}
        for point in self.dart:
            fixed = {name: value for name, value in point.options.items() if name not in names}
            key = f"{point.benchmark} {question_set(point.record)} {sorted(fixed.items(), key=str)}"
            groups.setdefault(key, []).append(point)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def layers(self) -> int | None:
        """Layers of the language model."""
        known = (n for point in self.dart if (n := decoder_layers(point.record)))
        return self.target.n_layers or next(known, None)
