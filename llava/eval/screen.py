"""Results as text for a terminal: scores, token accounting and times side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
DASH = "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a plain table; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        return "  ".join(cells).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)]


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a fixed number of digits, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def report(records: Sequence[Record]) -> list[str]:
    """Return the text about the runs of one benchmark; an unpruned run among them is the reference of the others."""
    reference = next((record for record in records if record["method"]["name"] == "none"), None)
    first = records[0]
    scored = first["samples"]["scored"]
    part = "" if scored == first["samples"]["in_data_set"] else f" of {first['samples']['in_data_set']}"
    where = f"{first['device']}, {first['dtype']}, {first['attention']} attention"
    lines = [
        "",
        f"{first['title']} ({first['split']} data, {scored}{part} questions), {first['model']['name']}, {where}",
    ]
    lines += [""] + table(*budget_table(records, reference)) + [""] + table(*score_table(records))
    return lines + [""] + remarks(records, reference)


def budget_table(records: Sequence[Record], reference: Record | None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: score, budget three ways, cache, FLOPs, time, each next to the unpruned run."""
    unit = records[0]["headline"]["unit"]
    header = [
        "method",
        f"{records[0]['headline']['name']}{' ' + unit if unit else ''}",
        "vs none",
        "asked",
        "kept",
        "mean/layer",
        "cache MB",
        "FLOPs",
        "select ms",
        "s/sample",
        "vs none",
    ]
    return header, [_budget_row(record, reference) for record in records]


def _budget_row(record: Record, reference: Record | None) -> list[str]:
    counts, times = record["accounting"], record["timings"]
    selection = counts.get("selection_seconds")
    cache = counts.get("cache_bytes")
    flops, full = counts.get("flops_exact"), counts.get("flops_exact_unpruned")
    return [
        record["method"]["label"],
        number(record["headline"]["value"]),
        _share(record["headline"]["value"], reference and reference["headline"]["value"]),
        number(counts.get("asked"), 0),
        kept(counts),
        number(counts.get("mean_over_layers"), 1),
        number(cache and cache / 1e6),
        _share(flops, full),
        number(selection if selection is None else 1000 * selection),
        number(times.get("per_sample_s"), 3),
        _speed(record, reference),
    ]


def kept(counts: Mapping[str, Any]) -> str:
    """Return `132 of 576`: visual tokens after the last cut, and before any."""
    if counts.get("final") is None:
        return DASH
    return f"{counts['final']:.0f} of {counts['visual']:.0f}"


def score_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of all metrics: one row per metric and group, one column per method."""
    keys = dict.fromkeys((m["group"], m["name"]) for record in records for m in _all_metrics(record))
    units = {(m["group"], m["name"]): m["unit"] for record in records for m in _all_metrics(record)}
    values = [{(m["group"], m["name"]): m["value"] for m in _all_metrics(record)} for record in records]
    rows = []
    for group, name in keys:
        label = " ".join(word for word in (group, name, units[group, name]) if word)
        digits = 2 if units[group, name] else 0
        rows.append([label, *(number(found.get((group, name)), digits) for found in values)])
    return ["metric", *(record["method"]["label"] for record in records)], rows


def remarks(records: Sequence[Record], reference: Record | None) -> list[str]:
    """Return sentences: rules that applied, notes of the scorer, errors, official numbers, files."""
    lines: list[str] = []
    for record in records:
        lines += [f"{record['method']['label']}: {note}" for note in record["method"]["notes"]]
    for record in records:
        lines += [note for note in record["notes"] if note not in lines]
    for record in records:
        why = time_mismatch(record, reference)
        if why:
            lines.append(f"{record['method']['label']}: no time ratio, {why}.")
        if record["errors"]:
            lines.append(f"{record['method']['label']}: {len(record['errors'])} questions could not be asked:")
            lines += [f"  answer {e['answer']} ({e['question_id']}): {e['error']}" for e in record["errors"][:20]]
    official = records[0]["official"]
    lines += [f"Official, unpruned {o['model']}: {o['metric']} {o['value']:g} ({o['source']})" for o in official]
    if not official:
        lines.append("No official number: they hold for the complete full data set of a released model only.")
    return lines + [f"{record['method']['label']}: {record['results_file']}" for record in records]


def time_mismatch(record: Record, reference: Record | None) -> str:
    """Return why two times cannot be compared, or an empty string."""
    if reference is None or record is reference or not record["timings"] or not reference["timings"]:
        return ""
    mine, theirs = record["timings"]["batch_size"], reference["timings"]["batch_size"]
    return "" if mine == theirs else f"its batch size was {mine}, that of the unpruned run {theirs}"


def _all_metrics(record: Record) -> list[Mapping[str, Any]]:
    return [record["headline"], *(m for m in record["metrics"] if m != record["headline"])]


def _share(value: float | None, whole: float | None) -> str:
    return DASH if value is None or not whole else f"{100 * value / whole:.1f} %"


def _speed(record: Record, reference: Record | None) -> str:
    if reference is None or time_mismatch(record, reference):
        return DASH
    mine, theirs = (r["timings"].get("per_sample_s") for r in (record, reference))
    return DASH if not mine or not theirs else f"{theirs / mine:.2f} x"
