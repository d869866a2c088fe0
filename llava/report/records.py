"""Reading results JSON files, and refusing to compare what was not measured alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import BadData, ConfigurationError
from llava.eval.results import FORMAT

Record = Mapping[str, Any]
PACKED = "packed_results"
"""Key of the list in a file that holds many results."""
SAME = ("split", "dtype", "attention")
"""What all runs of one table share, besides model, benchmark and number of questions."""


@dataclass(frozen=True)
class Scan:
    """What lies in folders: results, other JSON objects with their files, and sentences about what cannot be used."""

    records: list[Record] = field(default_factory=list)
    others: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(folders: Sequence[Path]) -> Scan:
    """Read all JSON files below folders, by file name; what is not there is empty, a file stands for itself."""
    found = Scan()
    listed = (sorted(folder.rglob("*.json")) if folder.is_dir() else [folder] for folder in folders if folder.exists())
    files = dict.fromkeys(path for paths in listed for path in paths)
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            found.problems.append(f"{path} cannot be read: {error}")
            continue
        if isinstance(content, dict):
            for one in content[PACKED] if isinstance(content.get(PACKED), list) else [content]:
                _sort_in(path, one, found)
    return found


def _sort_in(path: Path, content: dict[str, Any], found: Scan) -> None:
    if not {"benchmark", "method", "accounting"} <= set(content):
        found.others.append((path, content))
    elif content.get("format") == FORMAT:
        found.records.append(content)
    else:
        found.problems.append(f"{path} has format {content.get('format')!r}, this version reads {FORMAT}: run again.")


def packed(folder: Path) -> str:
    """Return all results below a folder as one JSON text, a line each; `scan` reads it like the files themselves.

    Raises:
        BadData: there are none, or some cannot be read.
    """
    lines = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in read(folder))
    return f'{{"{PACKED}": [\n' + ",\n".join(lines) + "\n]}\n"


def read(folder: Path) -> list[Record]:
    """Return the records of all results JSON files below `folder`, by file name.

    Raises:
        BadData: there are none, or some cannot be read; all of them are named.
    """
    found = scan([folder])
    if found.problems:
        raise ConfigurationError(*found.problems)
    if not found.records:
        raise BadData(
            f"{folder} holds no results. Make some, for example: "
            f"python -m llava.eval pope --method dart --keep 128 --compare --output {folder}"
        )
    return found.records


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
