"""Reading results JSON files, and refusing to compare what was not measured alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, ConfigurationError
from llava.eval.results import FORMAT

Record = Mapping[str, Any]
SAME = ("split", "dtype", "attention")
"""What all runs of one table share, besides model, benchmark and number of questions."""


def read(folder: Path) -> list[Record]:
    """Return the records of all results JSON files below `folder`, by file name.

    Raises:
        BadData: there are none, or some cannot be read; all of them are named.
    """
    found, problems = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        if isinstance(content, dict) and {"benchmark", "method", "accounting"} <= set(content):
            if content.get("format") == FORMAT:
                found.append(content)
            else:
                problems.append(f"{path} has format {content.get('format')!r}, this version reads {FORMAT}: run again.")
    if problems:
        raise ConfigurationError(*problems)
    if not found:
        raise BadData(
            f"{folder} holds no results. Make some, for example: "
            f"python -m llava.eval pope --method dart --keep 128 --compare --output {folder}"
        )
    return found


def check_alike(records: Sequence[Record]) -> None:
    """Refuse runs that differ in anything but the method.

    Raises:
        ConfigurationError: names what differs and where.
    """
    problems = []
    for benchmark in dict.fromkeys(r["benchmark"] for r in records):
        group = [r for r in records if r["benchmark"] == benchmark]
        facts = {
            **{name: {r[name] for r in group} for name in SAME},
            "weights": {r["model"]["weights_digest"] for r in group},
            "questions": {r["samples"]["scored"] for r in group},
        }
        problems += [
            f"{benchmark}: the runs differ in {name} ({', '.join(sorted(map(str, values)))}); put them into one folder "
            "each, or run them again alike."
            for name, values in facts.items()
            if len(values) > 1
        ]
    for label in dict.fromkeys(r["method"]["label"] for r in records):
        asked = {r["benchmark"]: r["accounting"].get("asked") for r in records if r["method"]["label"] == label}
        visual = {r["accounting"].get("visual") for r in records if r["method"]["label"] == label}
        if len(visual) == 1 and len(set(asked.values())) > 1:
            problems.append(f"{label}: the budget differs between benchmarks: {asked}.")
    if problems:
        raise ConfigurationError(*problems)
