"""The command `python -m llava.report priors`: what a model knows beside what it guesses without seeing.

Runs with `llava.eval --blank` answer the same questions about images that show nothing: a score far above theirs is
seen, not guessed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.commandline import say
from llava.errors import BadData
from llava.report.records import Record

MARK = "priors"


@dataclass(frozen=True)
class Priors:
    """Show for every benchmark the unpruned score, the score with blank images, and the difference."""

    results: tuple[Path, ...] = (Path("results"),)
    """Folders with results JSON files, of runs without pruning, with and without --blank."""
    update: Path | None = None
    """Markdown file whose lines between `<!-- priors -->` and `<!-- end of priors -->` become this table."""


def priors(config: Priors) -> None:
    from llava.eval import screen
    from llava.report import records, summary

    found = [r for r in records.scan(config.results).records if r["method"]["name"] == summary.NONE]
    header, rows = table(found)
    for line in ("", summary.setting(found), "", *screen.table(header, rows, 1), ""):
        say(line)
    if config.update is not None:
        text = f"{summary.markdown(header, rows)}\n\n{summary.setting(found)}\n"
        summary.update(config.update, text, MARK)


def table(found: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows, the mean over the benchmarks last; those that only a judge can score are left out.

    Raises:
        BadData: no benchmark has a run with images and one without.
    """
    shares = {(r["benchmark"], _blank(r)): share for r in found if (share := percent(r)) is not None}
    runs = {r["benchmark"]: r for r in found if not _blank(r)}
    pairs = {
        name: (shares[name, False], shares[name, True])
        for name in runs
        if {(name, False), (name, True)} <= shares.keys()
    }
    if not pairs:
        raise BadData(
            "There is no benchmark with a result of the unpruned model and one with blank images. Make both: "
            "python -m llava.eval pope, then python -m llava.eval pope --blank"
        )
    rows = [
        [runs[name]["title"], str(runs[name]["samples"]["scored"]), *_cells(*scores)]
        for name, scores in sorted(pairs.items())
    ]
    means = [statistics.mean(column) for column in zip(*pairs.values(), strict=True)]
    return ["benchmark", "questions", "accuracy %", "blank image %", "above it"], [
        *rows,
        ["mean", "", *_cells(*means)],
    ]


def percent(run: Record) -> float | None:
    """Return the share of right answers in percent; None if a judge has to score them.

    It is the metric named accuracy (over all, else the mean of its groups' values), else the headline, which where it
    counts points is one a question (OCRBench).
    """
    accuracies = {m["group"]: m["value"] for m in run["metrics"] if m["name"] == "accuracy"}
    headline = run["headline"]
    if "" in accuracies:
        return accuracies[""]
    if accuracies:
        return statistics.mean(accuracies.values())
    if headline["value"] is None or headline["unit"] == "%":
        return headline["value"]
    return 100 * headline["value"] / run["samples"]["scored"]


def _blank(run: Record) -> bool:
    return bool(run["configuration"].get("pixels", {}).get("blank"))


def _cells(seen: float, blank: float) -> list[str]:
    return [f"{seen:.1f}", f"{blank:.1f}", f"{seen - blank:+.1f}"]
