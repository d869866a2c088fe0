"""Files for evaluation servers that take one JSON array: written, read back, compared with what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData
from llava.eval.benchmarks import files

Entry = dict[str, Any]


def write(path: Path, entries: Sequence[Entry], wanted: Sequence[Any]) -> Path:
    """Write an upload and check what was written.

    Args:
        path: where to.
        entries: objects of two fields, a key and `answer`.
        wanted: keys the server asks for, in order.

    Raises:
        BadData: the file does not have what the server wants (`objections`).
    """
    files.write_json(path, entries)
    found = objections(path, next(iter(entries[0])), wanted)
    if found:
        raise BadData("\n".join([f"{path} would be refused:", *files.shortened(found)]))
    return path


def objections(path: Path, key: str, wanted: Sequence[Any]) -> list[str]:
    """Return how a file differs from one object `{key, "answer": text}` for every wanted key, in order.

    Raises:
        MissingData: the file is not there.
        BadData: it is not a JSON array.
    """
    content = files.read_json(path, list)
    found = [] if len(content) == len(wanted) else [f"{len(content)} entries instead of {len(wanted)}"]
    for number, (entry, name) in enumerate(zip(content, wanted, strict=False), start=1):
        if not isinstance(entry, dict) or set(entry) != {key, "answer"}:
            found.append(f"entry {number}: not an object with the fields {key} and answer")
        elif entry[key] != name or type(entry[key]) is not type(name):
            found.append(f"entry {number}: {key} {entry[key]!r} instead of {name!r}")
        elif not isinstance(entry["answer"], str):
            found.append(f"entry {number}: answer {entry['answer']!r} is not text")
    return found


def require_complete(answered: set[str], wanted: Sequence[str]) -> None:
    """Refuse an upload that leaves questions without an answer.

    Raises:
        BadData: with the count and the first ids.
    """
    absent = [key for key in wanted if key not in answered]
    if absent:
        lines = files.shortened(absent)
        heading = f"The upload needs an answer to every question; {len(absent)} of {len(wanted)} have none."
        raise BadData("\n".join([heading, *lines]))
