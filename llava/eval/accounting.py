"""Means over a run of what each batch measured: token budgets, cache, FLOPs, times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llava.model.accounting import PER_BATCH, PER_SAMPLE

if TYPE_CHECKING:
    from llava.model.report import Report

Numbers = dict[str, Any]
"""name -> number, list of numbers (one per cut), or None."""


def batch_means(report: Report) -> Numbers:
    """Return the per-sample means of one prefill's `Report`; `kept` has one number per cut.

    Cache bytes and selection time belong to the whole batch and are divided by its size (filler of shorter samples is
    really stored, and counts).
    """
    samples = len(report.prompt)
    found: Numbers = {name: sum(getattr(report, name)) / samples for name in PER_SAMPLE}
    found["kept"] = [sum(cut) / samples for cut in report.kept]
    for name in PER_BATCH:
        value = getattr(report, name)
        found[name] = None if value is None else value / samples
    return found


def mean(values: Sequence[tuple[Any, int]]) -> Any:
    """Return the weighted mean of (value, weight) pairs; lists are averaged element by element, None is left out."""
    known = [(value, weight) for value, weight in values if value is not None and weight]
    if not known:
        return None
    if isinstance(known[0][0], (list, tuple)):
        width = max(len(value) for value, _ in known)
        return [mean([(value[i], weight) for value, weight in known if i < len(value)]) for i in range(width)]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def run_means(measures: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return the mean over all samples of every number in the batches' `accounting`."""
    names = dict.fromkeys(name for measure in measures for name in measure.get("accounting") or {})
    return {
        name: mean([((measure.get("accounting") or {}).get(name), measure["asked"]) for measure in measures])
        for name in names
    }


def timings(measures: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return seconds per sample of each part: mean over the samples, median and quartiles over the batches.

    `preprocess`: pixel values, tokenising, and waiting for images that are opened in the background; `first_token`:
    image encoding and prefill up to the first token (selection included); `decode`: the rest of the generation;
    `generate`: both; `total`: everything. The first batch of every start warms the machine up; it is left out when
    there are others.
    """
    used = [m for m in measures if m["asked"] and not m["warm_up"]] or [m for m in measures if m["asked"]]
    if not used:
        return {}
    samples = [m["asked"] for m in used]
    found: Numbers = {
        "samples": sum(samples),
        "batches": len(used),
        "batch_size": sorted({m["batch_size"] for m in used}),
        "new_tokens": sum(m["new_tokens"] * m["asked"] for m in used) / sum(samples),
    }
    for part in ("preprocess", "first_token", "decode", "generate", "total"):
        per_sample = [_seconds(m["seconds"], part) / m["asked"] for m in used]
        found[part] = {
            "mean_s": mean(list(zip(per_sample, samples, strict=True))),
            "median_s": statistics.median(per_sample),
            "quartiles_s": _quartiles(per_sample),
        }
    return found


def _seconds(seconds: Mapping[str, float], part: str) -> float:
    if part == "decode":
        return seconds["generate"] - seconds["first_token"]
    return seconds["preprocess"] + seconds["generate"] if part == "total" else seconds[part]


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    quarters = statistics.quantiles(values, n=4, method="inclusive")
    return [quarters[0], quarters[2]]
