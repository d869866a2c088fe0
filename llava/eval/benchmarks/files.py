"""Reading benchmark files: every malformed row is reported with file and line, every missing path together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, LlavaError, MissingData

SHOWN = 100
"""Most lines of a list shown on screen; the rest is counted."""

Kinds = dict[str, Any]


class Problems:
    """Collects sentences about one file and raises them together."""

    def __init__(self, heading: str):
        self.heading = heading
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def raise_if_any(self, error: type[LlavaError] = BadData, advice: str = "") -> None:
        """Raise `error` with the heading, the lines found so far and the advice, if there is any line."""
        if self.lines:
            raise error("\n".join([f"{self.heading}:", *shortened(self.lines), *([advice] if advice else [])]))


def shortened(lines: Sequence[str]) -> list[str]:
    """Return the lines, indented, at most `SHOWN` of them, then how many more there are."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    return shown + ([f"  ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def require(paths: Iterable[Path], advice: str = "") -> None:
    """Raise MissingData that lists every path that does not exist."""
    missing = missing_paths(paths)
    if missing:
        raise MissingData("\n".join(["Missing:", *shortened(missing), *([advice] if advice else [])]))


def missing_paths(paths: Iterable[Path]) -> list[str]:
    """Return the paths that do not exist; files of a folder that does not exist are listed as that folder, once."""
    listed: dict[str, None] = {}
    folders: dict[Path, bool] = {}
    counts: dict[Path, int] = {}
    wanted = list(dict.fromkeys(paths))
    for path in wanted:
        counts[path.parent] = counts.get(path.parent, 0) + 1
    for path in wanted:
        parent = path.parent
        if parent not in folders:
            folders[parent] = parent.is_dir()
        if not folders[parent] and counts[parent] > 3:
            listed[f"{parent}/  (the whole folder: {counts[parent]} files)"] = None
        elif not folders[parent] or not path.exists():
            listed[str(path)] = None
    return list(listed)


def read_text(path: Path) -> str:
    """Return a UTF-8 text file; a missing one raises MissingData, another encoding raises BadData with the place."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingData(f"Missing:\n  {path}") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.") from error


def read_rows(path: Path, required: Kinds, optional: Kinds | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file.

    Args:
        path: the file; blank lines are skipped.
        required: field -> type or types it must have.
        optional: field -> type or types it must have when it is there.

    Raises:
        BadData: lists every malformed line.
        MissingData: the file is not there.
    """
    rows, problems = parse_rows(read_text(path), path, required, optional)
    problems.raise_if_any()
    if not rows:
        raise BadData(f"{path} has no rows.")
    return rows


def parse_rows(
    text: str, path: Path, required: Kinds, optional: Kinds | None = None
) -> tuple[list[dict[str, Any]], Problems]:
    """Return (good rows, problems) of JSON-lines text."""
    rows: list[dict[str, Any]] = []
    problems = Problems(f"{path} has malformed rows")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(f"line {number}: not JSON ({error.msg} at column {error.colno})")
            continue
        wrong = _wrong_fields(row, required, optional or {})
        if wrong:
            problems.add(f"line {number}: {wrong}")
        else:
            rows.append(row)
    return rows, problems


def _wrong_fields(row: Any, required: Kinds, optional: Kinds) -> str:
    if not isinstance(row, dict):
        return f"not an object with fields, but {type(row).__name__}"
    wrong = [f"field {name!r} is missing" for name in required if name not in row]
    for name, kind in {**optional, **required}.items():
        if name in row and (not isinstance(row[name], kind) or isinstance(row[name], bool)):
            wrong.append(f"field {name!r} is {row[name]!r}, not {_kind_name(kind)}")
    return "; ".join(wrong)


def _kind_name(kind: Any) -> str:
    names = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names.get(one, one.__name__) for one in kinds)
