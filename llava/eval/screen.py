"""Results as text for a terminal: scores, token accounting and times side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
DASH = "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """Return the lines of a plain table: the first `left` columns (default: those up to `method`) are left-aligned."""
    left = header.index("method") + 1 if left is None else left
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = zip(row, widths, strict=True)
        cells = [cell.ljust(width) if n < left else cell.rjust(width) for n, (cell, width) in enumerate(padded)]
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
    lines += ["", *table(*budget_table(records, reference))]
    for scores in score_tables(records):
        lines += ["", *table(*scores)]
    return [*lines, "", *remarks(records, reference)]


def budget_table(records: Sequence[Record], reference: Record | None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: score, budget three ways, cache, FLOPs, times, each next to the unpruned run.

    Times are per sample, medians over the batches; `prefill s` ends with the first token, image encoding included.
    """
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
        "prefill s",
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
        _share(record["headline"]["value"], reference["headline"]["value"] if reference else None),
        number(counts.get("asked"), 0),
        kept(counts),
        number(counts.get("mean_over_layers"), 1),
        number(cache and cache / 1e6),
        _share(flops, full),
        number(selection if selection is None else 1000 * selection),
        number(_median(times, "first_token"), 3),
        number(_median(times, "total"), 3),
        _speed(record, reference),
    ]


def kept(counts: Mapping[str, Any]) -> str:
    """Return `132 of 576`: visual tokens after the last cut, and before any."""
    if counts.get("final") is None:
        return DASH
    return f"{counts['final']:.0f} of {counts['visual']:.0f}"


def score_tables(records: Sequence[Record]) -> list[tuple[list[str], list[list[str]]]]:
    """Return tables of all metrics besides the headline: sums over the whole benchmark, then splits or sub-tasks."""
    tables = []
    for whole in (True, False):
        chosen = [[m for m in record["metrics"] if (not m["group"]) == whole] for record in records]
        chosen = [
            [m for m in metrics if m != record["headline"]] for metrics, record in zip(chosen, records, strict=True)
        ]
        columns = {m["name"]: m["unit"] for metrics in chosen for m in metrics}
        if columns:
            header = ["" if whole else "part", "method", *(f"{name} {unit}".rstrip() for name, unit in columns.items())]
            tables.append((header, _score_rows(records, chosen, columns)))
    return tables


def _score_rows(
    records: Sequence[Record], chosen: Sequence[Sequence[Mapping[str, Any]]], columns: Mapping[str, str]
) -> list[list[str]]:
    rows = []
    for group in dict.fromkeys(m["group"] for metrics in chosen for m in metrics):
        for record, metrics in zip(records, chosen, strict=True):
            values = {m["name"]: m["value"] for m in metrics if m["group"] == group}
            cells = [number(values.get(name), 2 if unit else 0) for name, unit in columns.items()]
            rows.append([group if record is records[0] else "", record["method"]["label"], *cells])
    return rows


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
            failed = f"{len(record['errors'])} questions could not be asked and count as empty answers"
            lines.append(f"{record['method']['label']}: {failed}:")
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


def _share(value: float | None, whole: float | None) -> str:
    return DASH if value is None or not whole else f"{100 * value / whole:.1f} %"


def _median(times: Mapping[str, Any], part: str) -> float | None:
    return times[part]["median_s"] if times else None


def _speed(record: Record, reference: Record | None) -> str:
    if reference is None or time_mismatch(record, reference):
        return DASH
    mine, theirs = (_median(r["timings"], "total") for r in (record, reference))
    return DASH if not mine or not theirs else f"{theirs / mine:.2f} x"
