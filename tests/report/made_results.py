"""Hand-made results as the runner writes them, small enough to be calculated with on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llava.eval import benchmarks, identity
from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry

VISUAL = 576
LAYERS = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))["text_config"]["num_hidden_layers"]
COMMON = {
    "format": 1,
    "split": "mini",
    "timings": {},
    "model": {"path": "llava-nano", "name": "llava-nano", "family": "llava", "weights_digest": "abc"},
    "device": "cpu",
    "dtype": "float32",
    "attention": "sdpa",
    "versions": {"llava": "1", "torch": "2", "transformers": "5"},
}
CODE = "code1"


def result(benchmark: str, method: str, score: float | None, questions: int = 10, **changes: Any) -> dict[str, Any]:
    """One result; `method` is `dart-128` or, with options, `dart-128 criterion=random layer=3`."""
    label, *given = method.split()
    name, _, budget = label.partition("-")
    more = {key: int(value) if value.isdigit() else value for key, value in (text.split("=") for text in given)}
    preset = registry.preset(name, budget) if budget in registry.get(name).presets else {}
    made = registry.create(name, **{**preset, **more})
    kept = int(budget or VISUAL)
    layer = more.get("layer", 2)
    return {
        **COMMON,
        "benchmark": benchmark,
        "title": benchmark.upper(),
        "headline": {"name": "score", "unit": "", "value": score},
        "metrics": [],
        "samples": {"scored": questions, "in_data_set": 50, "limit": questions, "errors": 0},
        "errors": [],
        "method": {**identity.method_record(made), "label": label, "notes": []},
        "accounting": {
            "visual": VISUAL,
            "asked": kept,
            "final": kept,
            "mean_over_layers": (layer * VISUAL + (LAYERS - layer) * kept) / LAYERS if kept < VISUAL else VISUAL,
            "cache_bytes": 1e6 * kept,
            "cache_bytes_unpruned": 1e6 * VISUAL,
            "flops_exact": kept,
            "flops_exact_unpruned": VISUAL,
            "flops_paper": kept / 2,
            "flops_paper_unpruned": VISUAL,
            "selection_seconds": 0.002,
        },
        "max_new_tokens": benchmarks.get(benchmark).max_new_tokens,
        "run_id": f"{benchmark}-{method}",
        "finished": "2026-01-01T00:00:00+00:00",
        "configuration": {"code": CODE, "questions": {"count": questions, "digest": f"{benchmark}{questions}"}},
        **changes,
    }


def times(total: float, prefill: float) -> dict[str, Any]:
    """Seconds per question."""
    parts = {"total": total, "first_token": prefill}
    return {"batch_size": [8], **{name: {"mean_s": value, "median_s": value} for name, value in parts.items()}}


def write(folder: Path, *results: dict[str, Any]) -> Path:
    """Put results into a folder, a file each, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(results):
        (folder / f"{len(list(folder.iterdir()))}-{number}.json").write_text(json.dumps(content))
    return folder
