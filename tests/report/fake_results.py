"""Results of whole plans of runs with one score for the unpruned ones and another for all others."""

from __future__ import annotations

from typing import Any

from llava.report.cells import Cell, Target, method_of
from tests.report.made_results import COMMON, VISUAL, times

TINY = Target("tiny", None, "llava", "llava", 6)


def record(cell: Cell, score: float | None, seconds: float = 0.05) -> dict[str, Any]:
    """What a run of a cell would have written, as far as figures read it."""
    method = method_of(cell, TINY)
    kept = method.n_kept(VISUAL) if method.name in ("dart", "random", "fastv") else VISUAL
    counts = {"asked": kept, "final": kept, "visual": VISUAL, "mean_over_layers": 300.0}
    return {
        **COMMON,
        "benchmark": cell.benchmark,
        "title": cell.benchmark.upper(),
        "headline": {"name": "accuracy", "unit": "%", "value": score},
        "samples": {"scored": 100},
        "method": {"name": method.name, "label": cell.label},
        "accounting": counts,
        "timings": times(seconds, seconds / 2),
        "run_name": f"tiny-{cell.label}",
    }


def records(cells: list[Cell], unpruned: float = 80.0, pruned: float = 60.0) -> dict[Cell, dict[str, Any]]:
    """A record for every cell; unpruned runs take twice the time."""
    return {
        cell: record(cell, unpruned, 0.1) if cell.options.method == "none" else record(cell, pruned) for cell in cells
    }
