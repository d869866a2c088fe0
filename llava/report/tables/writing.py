"""Score tables as Markdown, CSV and JSON: per line what was measured here and, below it, what the paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.screen import DASH, number
from llava.report import paper
from llava.report.artefacts import Sheet, page
from llava.report.cells import Target
from llava.report.paper import UPPER_BOUND, Average
from llava.report.store import Record
from llava.report.summary import markdown
from llava.report.tables.lines import OTHER, Line

BUDGET = ("asked", "kept", "mean/layer", "cache", "FLOPs")
BUDGET_KEYS = ("visual", "asked", "kept", "mean_over_layers", "cache_percent", "flops_percent", "flops_paper_percent")
POINTS = ("mme", "ocrbench")
"""Columns in points; the others are in percent."""
UNEQUAL = "\u2260"
"""Marks a printed average that the printed scores do not give."""
PAPER = "paper"


def sheet(
    title: str, lines: Sequence[Line], columns: Sequence[str], target: Target, notes: Sequence[str], upright: bool
) -> Sheet:
    """Return a score table.

    Args:
        lines: with their results.
        columns: the paper's.
        notes: sentences below the table.
        upright: benchmarks across; False: benchmarks down, as the paper prints Table 6.
    """
    body = _across(lines, columns, target) if upright else _down(lines, columns, target)
    text = page(title, body, notes)
    header = ["block", "method", "label", "from", *BUDGET_KEYS, *columns, "average", "average_over", "average_printed"]
    return Sheet(text, header, _numbers(lines, columns, target), _content(title, lines, columns, target, notes))


def asked_questions(lines: Sequence[Line], columns: Sequence[str]) -> dict[str, int | None]:
    """Return column -> number of questions behind each of its cells."""
    found: dict[str, int | None] = dict.fromkeys(columns)
    for line in lines:
        found.update({column: record["samples"]["scored"] for column, record in line.here.items()})
    return {column: found[column] for column in columns}


def block_title(line: Line) -> str:
    """Return the heading of a block as the paper has it."""
    if line.setting == UPPER_BOUND:
        return f"{line.model}, all tokens"
    kind, _, amount = line.setting.partition("_")
    if kind == "reduce":
        return f"{line.model}, -{amount} %"
    return f"{line.model}, {amount} tokens (-{100 * paper.REDUCTIONS[line.setting]:.1f} %)"


def budget_cells(line: Line) -> list[str]:
    """Return asked, kept, mean per layer, cache and FLOPs as text."""
    cost = line.budget
    if cost is None:
        return [DASH] * len(BUDGET)
    kept = DASH if cost.kept is None else f"{cost.kept:.0f} of {cost.visual:.0f}"
    shares = [DASH if share is None else f"{share:.0f} %" for share in (cost.cache_percent, cost.flops_percent)]
    return [number(line.asked, 0), kept, number(cost.mean_over_layers, 1), *shares]


def score(value: float | None, column: str) -> str:
    """Return a score with as many digits as the paper prints."""
    return number(value, 0 if column in POINTS else 1)


def _average(average: Average | None, columns: int) -> str:
    if average is None or average.value is None:
        return DASH
    return f"{average.value:.2f}" + (f" (over {average.count})" if average.count != columns else "")


def _printed(average: Average | None) -> str:
    if average is None or average.printed is None:
        return ""
    return f"{average.printed:.1f}" + (f" {UNEQUAL}" if average.reproduced is False else "")


def _here(record: Record | None, column: str) -> str:
    if record is None:
        return DASH
    value = record["headline"]["value"]
    return "server" if value is None else score(value, column)


def _across(lines: Sequence[Line], columns: Sequence[str], target: Target) -> str:
    titles = [paper.COLUMNS[column][0] for column in columns]
    header = ["method", "from", *BUDGET, *titles, "Avg.", "printed"]
    rows: list[list[str]] = []
    questions = asked_questions(lines, columns)
    if any(questions.values()):
        counts = [DASH if questions[column] is None else str(questions[column]) for column in columns]
        rows.append(["questions behind each cell", target.name, *[""] * len(BUDGET), *counts, "", ""])
    block = ""
    for line in lines:
        if block_title(line) != block:
            block = block_title(line)
            rows.append([f"**{block}**", *[""] * (len(header) - 1)])
        label = line.label + (f" {OTHER}" if line.marked else "")
        if line.cells:
            scores = [_here(line.here.get(column), column) for column in columns]
            rows.append([label, target.name, *budget_cells(line), *scores, _average(line.average, len(columns)), ""])
            label = ""
        if line.paper:
            scores = [score(line.paper[column], column) for column in columns]
            printed = [_average(line.paper_average, len(columns)), _printed(line.paper_average)]
            rows.append([label, PAPER, *[""] * len(BUDGET), *scores, *printed])
    return markdown(header, rows, words=2)


def _down(lines: Sequence[Line], columns: Sequence[str], target: Target) -> str:
    header = ["", "from", *(line.label + (f" {OTHER}" if line.marked else "") for line in lines)]
    questions = asked_questions(lines, columns)
    rows = []
    for column in columns:
        count = questions[column]
        title = paper.COLUMNS[column][0] + ("" if count is None else f" ({count} questions)")
        rows.append([title, target.name, *(_here(line.here.get(column), column) for line in lines)])
        rows.append(["", PAPER, *(score(line.paper[column], column) if line.paper else "" for line in lines)])
    rows.append(["**Avg.**", target.name, *(_average(line.average, len(columns)) for line in lines)])
    rows.append(["", PAPER, *(_average(line.paper_average, len(columns)) if line.paper else "" for line in lines)])
    rows.append(["", f"{PAPER}, printed", *(_printed(line.paper_average) for line in lines)])
    for position, name in enumerate(BUDGET):
        rows.append([name, target.name, *(budget_cells(line)[position] for line in lines)])
    return markdown(header, rows, words=2)


def _numbers(lines: Sequence[Line], columns: Sequence[str], target: Target) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for line in lines:
        start = [block_title(line), line.method, line.label]
        if line.cells:
            cost = dict(line.budget) if line.budget else {}
            given = [line.asked if key == "asked" else cost.get(key) for key in BUDGET_KEYS]
            average = [line.average.value, line.average.count] if line.average else [None, None]
            rows.append([*start, target.name, *given, *(line.scores.get(column) for column in columns), *average, None])
        if line.paper and line.paper_average:
            average = [line.paper_average.value, line.paper_average.count]
            printed = [line.paper[column] for column in columns]
            rows.append([*start, PAPER, *[None] * len(BUDGET_KEYS), *printed, *average, line.paper_average.printed])
    return rows


def _content(
    title: str, lines: Sequence[Line], columns: Sequence[str], target: Target, notes: Sequence[str]
) -> Mapping[str, Any]:
    return {
        "title": title,
        "model": target.name,
        "columns": list(columns),
        "questions": asked_questions(lines, columns),
        "lines": [_line_content(line) for line in lines],
        "notes": list(notes),
    }


def _line_content(line: Line) -> dict[str, Any]:
    printed = line.paper_average
    return {
        "model": line.model,
        "setting": line.setting,
        "method": line.method,
        "label": line.label,
        "here": line.scores or None,
        "average": line.average and line.average.value,
        "average_over": line.average and line.average.count,
        "asked": line.asked,
        "budget": dict(line.budget) if line.budget else None,
        "options": next((record["method"].get("options") for record in line.here.values()), None),
        "runs": {column: record.get("run_id") for column, record in line.here.items()} or None,
        "other_version": line.marked,
        "paper": dict(line.paper) or None,
        "paper_average": printed and printed.value,
        "paper_average_over": printed and printed.count,
        "paper_average_printed": printed and printed.printed,
        "paper_average_reproduced": printed and printed.reproduced,
    }
