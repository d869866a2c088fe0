"""What one line of Table 2 holds, read from runs over POPE, from `llava.bench`, and from the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.eval.screen import time_mismatch
from llava.model.accounting import DecoderSize, flops_paper
from llava.report import paper
from llava.report.store import Record, Store, version_of
from llava.report.tables.lines import OTHER

NUMBER = "2"
MEGABYTE = 1e6
LABELS = paper.LABELS


@dataclass(frozen=True)
class Cost:
    """One line of the table; None is not known.

    Args:
        label, source: the method as shown, and who measured.
        tokens: visual tokens after the cut.
        asked, mean_over_layers: the budget as asked, and what a layer sees on average.
        total_s, prefill_s: seconds for all questions; the prefill ends with the first token, image encoding included.
        flops_percent: by Eqs. 11-13; `flops_exact_percent` with three feed-forward matrices.
        cache_mb: of one question, 10^6 bytes.
        score: POPE, mean F1 in percent.
        speedup_total, speedup_prefill: the unpruned time divided by this one.
        method: our name of it.
        selection_s: seconds that choosing took, per prompt.
        is_slice: whether only some layers of the model were there, so that its speed-ups are not the whole model's.
    """

    label: str
    source: str
    tokens: float | None = None
    asked: float | None = None
    mean_over_layers: float | None = None
    total_s: float | None = None
    prefill_s: float | None = None
    flops_percent: float | None = None
    flops_exact_percent: float | None = None
    cache_mb: float | None = None
    score: float | None = None
    speedup_total: float | None = None
    speedup_prefill: float | None = None
    method: str = ""
    selection_s: float | None = None
    is_slice: bool = False


def runner_costs(found: Mapping[str, Record]) -> tuple[list[Cost], list[str]]:
    """Return the costs of runs over POPE, and sentences about times that cannot be compared.

    Args:
        found: label -> result; the unpruned one has the method "none".
    """
    whole = next((record for record in found.values() if record["method"]["name"] == "none"), None)
    base = version_of(max(found.values(), key=lambda record: record["finished"])) if found else {}
    costs, sentences = [], []
    for label, record in found.items():
        why = time_mismatch(record, whole) or _other_machine(record, whole)
        if why:
            sentences.append(f"{label}: no speed-up, {why}.")
        counts, times = record["accounting"], record["timings"] or {}
        asked = record["samples"]["scored"]
        total, prefill = (times[part]["mean_s"] * asked if part in times else None for part in ("total", "first_token"))
        reference = whole["timings"] if whole and whole["timings"] and times and not why else None
        costs.append(
            Cost(
                label + (f" {OTHER}" if version_of(record) != base else ""),
                f"{record['model']['name']}, {asked} questions",
                counts.get("final"),
                counts.get("asked"),
                counts.get("mean_over_layers"),
                total,
                prefill,
                _percent(counts, "flops_paper"),
                _percent(counts, "flops_exact"),
                None if counts.get("cache_bytes") is None else counts["cache_bytes"] / MEGABYTE,
                record["headline"]["value"],
                reference and reference["total"]["mean_s"] / times["total"]["mean_s"],
                reference and reference["first_token"]["mean_s"] / times["first_token"]["mean_s"],
                record["method"]["name"],
                counts.get("selection_seconds"),
            )
        )
    return costs, sentences


def bench_costs(store: Store) -> tuple[dict[str, list[Cost]], list[str]]:
    """Return kind -> the lines of the `llava.bench` files in the folders, and which files cannot be used."""
    found: dict[str, list[Cost]] = {"total": [], "prefill": []}
    problems = []
    for path, content in store.files("bench"):
        try:
            costs = {"total": total_costs(path, content), "prefill": prefill_costs(path, content)}
        except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            problems.append(f"Not used: {path}, which is no complete result of llava.bench ({error}).")
            continue
        for kind, lines in costs.items():
            found[kind] += lines
    return found, problems


def total_costs(path: Path, content: Mapping[str, Any]) -> list[Cost]:
    """Return the lines of a `llava.bench total` file; none for a file of another kind."""
    if content.get("bench") != "total":
        return []
    pope = paper.COLUMNS["pope"][1]
    benchmark = content.get("subject", {}).get("benchmark") or pope
    where = _where(path, content)
    return [
        Cost(
            row["method"],
            f"{where}, {row['questions']} questions of {benchmark}",
            row["accounting"].get("final"),
            row["accounting"].get("asked"),
            row["accounting"].get("mean_over_layers"),
            row["total_seconds"],
            row["prefill_seconds"],
            _percent(row["accounting"], "flops_paper"),
            _percent(row["accounting"], "flops_exact"),
            None if row["accounting"].get("cache_bytes") is None else row["accounting"]["cache_bytes"] / MEGABYTE,
            (row.get("score") or {}).get("value") if benchmark == pope else None,
            row["speedup_total"],
            row["speedup_prefill"],
            _method(row),
            row["accounting"].get("selection_seconds"),
        )
        for row in content["rows"]
    ]


def prefill_costs(path: Path, content: Mapping[str, Any]) -> list[Cost]:
    """Return the lines of a `llava.bench prefill` file: one prefill of random weights; none for another kind."""
    if content.get("bench") != "prefill":
        return []
    where = _where(path, content)
    return [
        Cost(
            row["method"],
            where,
            _first(row, "final"),
            _first(row, "asked"),
            _first(row, "mean_over_layers"),
            prefill_s=row["prefill_seconds"]["median"],
            flops_exact_percent=100 / row["flops_ratio"],
            cache_mb=row["cache_bytes"] / MEGABYTE,
            speedup_prefill=(row["speedup"] or {}).get("median"),
            method=_method(row),
            selection_s=row["selection_seconds"]["median"],
            is_slice=_layers(content) is not None,
        )
        for row in content["rows"]
        if row.get("status", "ok") == "ok"
    ]


def _method(row: Mapping[str, Any]) -> str:
    """The method behind a label such as `dart-320`."""
    return str(row["method"]).partition("-")[0]


def _layers(content: Mapping[str, Any]) -> int | None:
    """How many layers of a model were there, if not all."""
    subject = content.get("subject", {})
    if "layers_of_whole_model" in subject:
        return subject["layers"] if subject["layers"] < subject["layers_of_whole_model"] else None
    return content.get("options", {}).get("layers")


def _where(path: Path, content: Mapping[str, Any]) -> str:
    """What a bench file measured, on what, and whether it was stopped early."""
    model = content.get("subject", {}).get("model") or content.get("options", {}).get("shape") or path.stem
    layers = _layers(content)
    model += "" if layers is None else f" ({layers} layers of it)"
    early = "" if content.get("complete", True) else ", stopped early"
    return f"{model}, {content['environment']['device']} ({path.name}{early})"


def paper_costs() -> list[Cost]:
    """Return the printed lines; speed-ups formed again from the printed times stand in the notes."""
    return [
        Cost(
            LABELS[row["method"]],
            "paper",
            row["tokens"],
            total_s=row["total_time_s"],
            prefill_s=row["prefill_time_s"],
            flops_percent=row["flops_percent"],
            cache_mb=row["kv_cache_mb"],
            score=row["pope"],
            speedup_total=row["speedup_total"],
            speedup_prefill=row["speedup_prefill"],
            method=paper.METHODS.get(row["method"], row["method"]),
        )
        for row in printed()
    ]


def formula_percent(tokens: int, whole: int) -> float:
    """Return the share of the operations left by Eqs. 11-13 for the paper's model, cut where the paper says."""
    size = _size()
    return 100 * flops_paper(_lengths(tokens, whole), size) / flops_paper([whole] * size.layers, size)


def cache_mb(tokens: int, whole: int) -> float:
    """Return the cache of the paper's model in 10^6 bytes, the layers before the cut included."""
    size = _size()
    per_token = 2 * size.kv_heads * size.head * paper.raw(NUMBER)["shape"]["bytes_per_value"]
    return sum(_lengths(tokens, whole)) * per_token / MEGABYTE


def _size() -> DecoderSize:
    shape = paper.raw(NUMBER)["shape"]
    heads, width = shape["heads"], shape["width"]
    return DecoderSize(width, heads, heads, width // heads, shape["ffn"], shape["layers"])


def _lengths(tokens: int, whole: int) -> list[int]:
    """Visual tokens in every layer of the paper's model."""
    shape = paper.raw(NUMBER)["shape"]
    first = shape["pruned_after"]
    return [whole] * first + [tokens] * (shape["layers"] - first)


def printed() -> list[dict[str, Any]]:
    """Return the printed lines as they stand in the data file."""
    return list(paper.raw(NUMBER)["rows"])


def _percent(counts: Mapping[str, Any], name: str) -> float | None:
    part, whole = counts.get(name), counts.get(f"{name}_unpruned")
    return None if part is None or not whole else 100 * part / whole


def _first(row: Mapping[str, Any], name: str) -> float | None:
    value: Any = row.get(name)
    return value[0] if isinstance(value, list) and value else value


def _other_machine(record: Record, whole: Record | None) -> str:
    if whole is None or record["device"] == whole["device"]:
        return ""
    return f"it ran on {record['device']}, the unpruned model on {whole['device']}"
