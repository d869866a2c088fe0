"""The results JSON of a run: what was asked of which model with which method, the score, the accounting, the times."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval import accounting, identity
from llava.eval.benchmarks.base import Metric, Row, Score
from llava.eval.data import DataSet

if TYPE_CHECKING:
    from llava.eval.runner import LoadedModel, MethodRun, Plan, Settings

FORMAT = 1
"""Raised when a field changes its meaning; tables refuse files of another format."""


def record(
    *,
    data: DataSet,
    score: Score,
    rows: Sequence[Row],
    measures: Sequence[Mapping[str, Any]],
    plan: Plan,
    loaded: LoadedModel,
    run: MethodRun,
    settings: Settings,
    store: Mapping[str, Any] | None,
    reused: int,
    exported: Sequence[str],
    started: str,
    finished: str,
) -> dict[str, Any]:
    """Return the content of the results JSON; every value is plain JSON."""
    errors = [
        {"answer": number, "question_id": row["question_id"], "error": row["metadata"]["error"]}
        for number, row in enumerate(rows, start=1)
        if row.get("metadata", {}).get("error")
    ]
    return {
        "format": FORMAT,
        **score_record(data, score, loaded.processor.family),
        "samples": {
            "scored": score.samples,
            "in_data_set": score.expected,
            "limit": settings.limit,
            "errors": len(errors),
            "reused": reused,
        },
        "errors": errors,
        "method": {**plan.configuration["method"], "label": run.label, "notes": list(run.notes)},
        "accounting": accounting.run_means(measures),
        "timings": accounting.timings(measures),
        "seed": settings.seed,
        "max_new_tokens": plan.configuration["max_new_tokens"],
        "decoding": plan.configuration["decoding"],
        "fast": settings.fast,
        "reuse": store,
        "model": {
            "path": loaded.path,
            "name": loaded.name,
            "family": loaded.processor.family,
            "weights_digest": loaded.digest,
        },
        **identity.hardware(loaded.model),
        **identity.surroundings(),
        "started": started,
        "finished": finished,
        "run_id": plan.run_id,
        "run_name": plan.name,
        "configuration": plan.configuration,
        "answers_file": str(plan.answers),
        "results_file": str(plan.results),
        "exported_files": list(exported),
    }


def score_record(data: DataSet, score: Score, family: str | None) -> dict[str, Any]:
    """Return benchmark, split, metrics and the official number as plain JSON."""
    applies = data.is_full and score.samples == score.expected
    references = data.benchmark.official.get(family or "", ()) if applies else ()
    return {
        "benchmark": data.benchmark.name,
        "title": data.benchmark.title,
        "split": data.kind,
        "headline": _metric(score.headline),
        "metrics": [_metric(metric) for metric in score.metrics],
        "official": [asdict(reference) for reference in references],
        "notes": list(score.notes),
        "printout": list(score.printout),
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)


def _metric(metric: Metric) -> dict[str, Any]:
    return asdict(metric)
