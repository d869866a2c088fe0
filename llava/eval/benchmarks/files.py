"""Reading benchmark files: every malformed row is reported with file and line, every missing path together."""

from __future__ import annotations

import json
import os
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


def read_json(path: Path, kind: type) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        kind: `list` or `dict`, what its outermost value has to be.

    Raises:
        MissingData: the file is not there.
        BadData: it is not JSON (the message gives the place) or of another kind.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        cut = ", where the file ends: it was cut off" if error.pos >= len(text.rstrip()) else ""
        raise BadData(
            f"{path} is not JSON: {error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}{cut}."
        ) from error
    if not isinstance(content, kind):
        raise BadData(f"{path} holds {_kind_name(type(content))}, not {_kind_name(kind)}.")
    return content


def checked_items(items: Iterable[tuple[Any, Any]], path: Path, required: Kinds, optional: Kinds | None = None) -> None:
    """Raise BadData that lists every item of a JSON file whose fields are absent or of the wrong kind.

    Args:
        items: (what to call it in the message, item).
        path: the file they come from.
        required, optional: field -> type or types, as in `read_rows`.
    """
    problems = Problems(f"{path} has malformed items")
    for name, item in items:
        wrong = _wrong_fields(item, required, optional or {})
        if wrong:
            problems.add(f"{name}: {wrong}")
    problems.raise_if_any()


def write_json(path: Path, content: Any, indent: int | None = None) -> Path:
    """Write a JSON file, all of it or nothing, with its folder; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)
    return path


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Write a JSON-lines file, all of it or nothing, with its folder; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(new, path)
    return path


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
    lines = text.split("\n")
    last = len(text.rstrip().split("\n"))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            cut = "; the last line, cut off" if number == last and not line.rstrip().endswith("}") else ""
            problems.add(f"line {number}: not JSON ({error.msg.removesuffix(' at')} at column {error.colno}{cut})")
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
        if name in row and not _is_kind(row[name], kind):
            wrong.append(f"field {name!r} is {row[name]!r}, not {_kind_name(kind)}")
    return "; ".join(wrong)


def _is_kind(value: Any, kind: Any) -> bool:
    # To Python True is a whole number; to a benchmark it is not.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kind) and (bool in kinds or not isinstance(value, bool))


def _kind_name(kind: Any) -> str:
    names = {int: "a whole number", str: "text", list: "a list", dict: "an object", bool: "true or false"}
    names |= {float: "a number", type(None): "null"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names.get(one, one.__name__) for one in kinds)
