"""The answers file of a run: LLaVA's JSON lines, flushed row by row, healed after a kill, continued by its run only.

Beside `<name>.jsonl` stands `<name>.run.jsonl`: its first line is the configuration with its `run_id`, every further
line holds the measurements of one batch. Row i of the answers file answers question i, so the file is its own progress.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, BadInput
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Question, Row

ANSWER_FIELDS = {"question_id": (int, str), "text": str}
OPTIONAL_FIELDS = {"prompt": str, "metadata": dict}


def read_answers(path: Path, skipped: list[str] | None = None) -> list[Row]:
    """Return the rows of any answers file in LLaVA's format (ours or another's).

    Args:
        path: the file.
        skipped: where malformed lines are described when they are to be left out (the error lines of LLaVA's
            converters); None: they are an error.

    Raises:
        MissingData: there is no such file.
        BadData: malformed lines, all listed.
    """
    rows, problems = files.parse_rows(files.read_text(path), path, ANSWER_FIELDS, OPTIONAL_FIELDS)
    if skipped is None:
        problems.raise_if_any(
            BadData, "An answers file holds one JSON object a line, with question_id, prompt and text."
        )
    else:
        skipped += problems.lines
    if not rows:
        raise BadData(f"{path} has no answers.")
    return rows


def answer_row(question: Question, text: str, model_id: str, answer_id: str, error: str | None = None) -> Row:
    """Return one line in LLaVA's format; a question that could not be asked keeps its place with an empty text."""
    return {
        "question_id": question.id,
        "prompt": question.text,
        "text": text,
        "answer_id": answer_id,
        "model_id": model_id,
        "metadata": {} if error is None else {"error": error},
        **question.extra,
    }


class AnswersFile:
    """Answers of one run, and the log of its measurements.

    Args:
        path: the answers file.
        run_id: hash of `configuration`.
        configuration: everything that determines the predictions; shown when another run wants the same file.
        questions: questions in the order of the file.

    Raises:
        BadInput: the file belongs to another configuration, to nobody known, or is in use.
        BadData: a complete line of the file is malformed or answers another question.
    """

    def __init__(self, path: Path, run_id: str, configuration: Mapping[str, Any], questions: Sequence[Question]):
        self.path = path
        self.log_path = path.with_name(f"{path.stem}.run.jsonl")
        self.questions = questions
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _Lock(self.log_path)
        try:
            self._open(run_id, configuration)
        except BaseException:
            if not self.log_path.stat().st_size:  # made by the lock; nothing of a run is in it
                self.log_path.unlink()
            self._lock.release()
            raise

    def _open(self, run_id: str, configuration: Mapping[str, Any]) -> None:
        _heal(self.log_path)
        log = _complete_lines(self.log_path)
        if log:
            self._check_owner(log[0], run_id, configuration)
        elif self.path.exists() and self.path.stat().st_size:
            raise BadInput(
                f"{self.path} was not written by this command, so it is left alone. "
                f"Name another file with --answers-file, or move this one away."
            )
        else:
            _append(self.log_path, [{"run_id": run_id, "configuration": configuration}])
        _heal(self.path)
        self.rows = self._checked_rows()
        # Measurements of answers that were lost with a killed process go too; they are the last lines.
        self.measures: list[dict[str, Any]] = [m for m in log[1:] if m["first"] + m["count"] <= len(self.rows)]
        if len(self.measures) < len(log[1:]):
            _keep_lines(self.log_path, 1 + len(self.measures))

    def _check_owner(self, header: dict[str, Any], run_id: str, configuration: Mapping[str, Any]) -> None:
        if header.get("run_id") == run_id:
            return
        changed = differences(header.get("configuration", {}), configuration)
        raise BadInput(
            "\n".join(
                [
                    f"{self.path} holds answers of another configuration; mixing them would spoil both. What differs:",
                    *files.shortened(changed or ["the run's identity"]),
                    "Repeat the earlier options to continue it, name another --answers-file, or add --restart to "
                    "set the earlier answers aside and begin anew.",
                ]
            )
        )

    def _checked_rows(self) -> list[Row]:
        if not self.path.exists():
            return []
        rows, problems = files.parse_rows(files.read_text(self.path), self.path, ANSWER_FIELDS, OPTIONAL_FIELDS)
        for number, (row, question) in enumerate(zip(rows, self.questions, strict=False), start=1):
            if row["question_id"] != question.id or row.get("prompt") != question.text:
                problems.add(f"answer {number}: is about {row['question_id']!r}, expected {question.id!r}")
        if len(rows) > len(self.questions):
            problems.add(f"{len(rows)} answers for {len(self.questions)} questions")
        problems.raise_if_any(BadData, "Repair these lines, or add --restart to set the file aside and begin anew.")
        return rows

    @property
    def failed(self) -> list[int]:
        """Positions of the questions that were recorded as errors."""
        return [position for position, row in enumerate(self.rows) if row.get("metadata", {}).get("error")]

    @property
    def finished(self) -> bool:
        """Whether every question has its row."""
        return len(self.rows) == len(self.questions)

    def append(self, rows: Sequence[Row], measure: Mapping[str, Any]) -> None:
        """Write the answers of the next questions, row by row, then what was measured while answering them."""
        first = len(self.rows)
        _append(self.path, rows)
        self.rows += rows
        line = {"first": first, "count": len(rows), **measure}
        _append(self.log_path, [line])
        self.measures.append(line)

    def replace(self, rows: Mapping[int, Row]) -> None:
        """Put new answers in the place of earlier ones (questions that failed before), all or none of them."""
        merged = [rows.get(position, row) for position, row in enumerate(self.rows)]
        _replace(self.path, merged)
        self.rows = merged

    def close(self) -> None:
        """Let others use the file; a run without a single answer leaves nothing behind."""
        if not self.rows and not self.path.exists():
            self.log_path.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def set_aside(path: Path) -> list[Path]:
    """Rename an answers file and its log to the first free `<name>.old<N>`; return the new names."""
    moved = []
    for old in (path, path.with_name(f"{path.stem}.run.jsonl")):
        if old.exists():
            number = 1
            while (new := old.with_name(f"{old.name}.old{number}")).exists():
                number += 1
            old.rename(new)
            moved.append(new)
    return moved


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return one line `name: before -> now` for every value in which two nested configurations differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name}: {before} -> {now}"]


# --------------------------------------------------------------------------------------------- bytes on disk


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("ab", buffering=0) as file:
        for row in rows:
            file.write(_line(row))


def _replace(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(b"".join(_line(row) for row in rows))
    os.replace(new, path)


def _heal(path: Path) -> None:
    """Cut off what follows the last line end: a line that was being written when the process was killed."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _keep_lines(path: Path, count: int) -> None:
    """Cut a file after its first `count` lines."""
    lines = path.read_bytes().split(b"\n")[:count]
    os.truncate(path, sum(len(line) + 1 for line in lines))


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except ValueError as error:
        raise BadData(
            f"{path} is damaged ({error}). Add --restart to set it aside with its answers and begin anew."
        ) from error


class _Lock:
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
        self._file.close()
