"""The answers file of a run: LLaVA's JSON lines, flushed row by row, healed after a kill, continued by its run only.

Beside `<name>.jsonl` stands `<name>.run.jsonl`: its first line is the configuration with its `run_id`, every further
line holds the measurements of one batch. Row i of the answers file answers question i, so the file is its own progress;
answers that come before their turn wait in a part file (`part.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, BadInput
from llava.eval import lines
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Question, Row
from llava.eval.part import Part, part_path, part_paths, places_of

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
        self._lock = lines.Lock(self.log_path)
        try:
            self._open(run_id, configuration)
        except BaseException:
            if not self.log_path.stat().st_size:  # made by the lock; nothing of a run is in it
                self.log_path.unlink()
            self._lock.release()
            raise

    def _open(self, run_id: str, configuration: Mapping[str, Any]) -> None:
        lines.heal(self.log_path)
        log = lines.complete_lines(self.log_path)
        if log:
            self._check_owner(log[0], run_id, configuration)
        elif self.path.exists() and self.path.stat().st_size:
            raise BadInput(
                f"{self.path} was not written by this command, so it is left alone. "
                f"Name another file with --answers-file, or move this one away."
            )
        else:
            log = [{"run_id": run_id, "configuration": configuration}]
            lines.append(self.log_path, log)
        lines.heal(self.path)
        self.rows = self._checked_rows()
        lines.heal(part_path(self.path, 0))
        self._part = Part(part_path(self.path, 0), run_id)
        others = [Part(path, run_id) for path in part_paths(self.path) if path != self._part.path]
        # Failed ones are asked again.
        self.ahead = {place: row for place, row in self._part.rows.items() if self._waits(place) and not _failed(row)}
        # Measurements are written before their answers; those of answers that were lost with a killed process go too.
        self.measures: list[dict[str, Any]] = [m for m in log[1:] if all(map(self.has, places_of(m)))]
        if len(self.measures) < len(log[1:]):
            lines.replace(self.log_path, [log[0], *self.measures])
        for other in others:  # of an earlier start with more processes, or of the other processes of this one
            self.absorb({place: row for place, row in other.rows.items() if not _failed(row)}, other.measures)
        self._move_up()

    def _waits(self, place: int) -> bool:
        return len(self.rows) <= place < len(self.questions)

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
        return [position for position, row in enumerate(self.rows) if _failed(row)]

    @property
    def finished(self) -> bool:
        """Whether every question has its row."""
        return len(self.rows) == len(self.questions)

    @property
    def answered(self) -> set[int]:
        """Places of the questions that are answered."""
        return {*range(len(self.rows)), *self.ahead}

    @property
    def rows_in_order(self) -> list[Row]:
        """The answers so far, in question order, with gaps where a question is still open."""
        return [*self.rows, *(self.ahead[place] for place in sorted(self.ahead))]

    def has(self, place: int) -> bool:
        """Whether the question at this place is answered."""
        return 0 <= place < len(self.rows) or place in self.ahead

    def append(self, rows: Sequence[Row], measure: Mapping[str, Any]) -> None:
        """Keep the answers of the next questions, and what was measured while answering them."""
        self.record(dict(enumerate(rows, start=len(self.rows))), measure)

    def record(self, rows: Mapping[int, Row], measure: Mapping[str, Any]) -> None:
        """Keep answers, by the places of their questions, and what was measured while answering them.

        A question that is answered already keeps its earlier answer. Rows that continue the file are written to it one
        by one, and the others wait in the part file.
        """
        new = {place: row for place, row in rows.items() if not self.has(place)}
        # Before the answers, so that a complete file is never without its measurements.
        self._measured({"places": list(new), **measure})
        self._keep(new)

    def absorb(self, rows: Mapping[int, Row], measures: Sequence[Mapping[str, Any]]) -> None:
        """Take over what another process answered and measured, except what is here already."""
        new = {place: row for place, row in rows.items() if place < len(self.questions) and not self.has(place)}
        covered = {place for measure in self.measures for place in places_of(measure)}
        for measure in measures:
            if not covered.issuperset(places_of(measure)):
                self._measured(measure)
        self._keep(new)

    def _measured(self, measure: Mapping[str, Any]) -> None:
        lines.append(self.log_path, [measure])
        self.measures.append(dict(measure))

    def _keep(self, new: Mapping[int, Row]) -> None:
        self.ahead.update(new)
        end = len(self.rows)
        while end in self.ahead:
            end += 1
        waiting = {place: row for place, row in new.items() if place > end}
        if waiting:
            self._part.add(waiting)
        self._move_up()

    def _move_up(self) -> None:
        """Write the answers whose turn has come; a part file with nothing left to wait for is deleted."""
        turn: list[Row] = []
        while len(self.rows) + len(turn) in self.ahead:
            turn.append(self.ahead[len(self.rows) + len(turn)])
        if turn:
            lines.append(self.path, turn)
        for row in turn:
            del self.ahead[len(self.rows)]
            self.rows.append(row)
        if not self.ahead:
            self._part.remove()

    def replace(self, rows: Mapping[int, Row]) -> None:
        """Put new answers in the place of earlier ones (questions that failed before), all or none of them."""
        merged = [rows.get(position, row) for position, row in enumerate(self.rows)]
        lines.replace(self.path, merged)
        self.rows = merged

    def close(self) -> None:
        """Let others use the file; a run without a single answer leaves nothing behind."""
        if self.finished:
            for path in part_paths(self.path):
                path.unlink(missing_ok=True)
        if not self.answered and not self.path.exists():
            self.log_path.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _failed(row: Row) -> bool:
    return bool(row.get("metadata", {}).get("error"))


def set_aside(path: Path) -> list[Path]:
    """Rename an answers file and its log to the first free `<name>.old<N>`; return the new names."""
    moved = []
    for old in (path, path.with_name(f"{path.stem}.run.jsonl"), *part_paths(path)):
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
