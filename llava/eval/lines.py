"""Files of JSON lines that survive a kill at any point: appended by row, healed on opening, locked while written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, BadInput


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows behind the last one, each with a single call to the system."""
    with path.open("ab", buffering=0) as file:
        for row in rows:
            file.write(_line(row))


def replace(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file anew, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(b"".join(_line(row) for row in rows))
    os.replace(new, path)


def heal(path: Path) -> None:
    """Cut off what follows the last line end: a line that was being written when the process was killed."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, without a line that is still being written; an absent file has none.

    Raises:
        BadData: a complete line is no JSON.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].split(b"\n") if line]
    except ValueError as error:
        raise BadData(
            f"{path} is damaged ({error}). Add --restart to set it aside with its answers and begin anew."
        ) from error


class Lock:
    """Keeps a second run from writing the same files; released by the system when the process dies."""

    def __init__(self, path: Path):
        self._file = path.open("ab")
        try:
            import fcntl
        except ImportError:  # no such lock on this system
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise BadInput(f"{path} is in use: another run is writing it. Wait, or name another file.") from error

    def release(self) -> None:
        """Let others use the file."""
        self._file.close()
