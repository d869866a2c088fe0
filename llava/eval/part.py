"""A part file: answers that cannot stand in the answers file yet, because an earlier question is still open.

Questions are asked in batches of like length, and by several processes, so answers come out of order. Each process
keeps them in `<answers>.part<process>.jsonl` until they have their turn: a line is the run's identity (the first),
what was measured on a batch, or one answer with its place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadInput
from llava.eval import lines
from llava.eval.benchmarks.base import Row

PART = r"\.part(\d+)\.jsonl"


def part_path(answers: Path, process: int) -> Path:
    """Return the part file of a process beside an answers file."""
    return answers.with_name(f"{answers.stem}.part{process}.jsonl")


def part_paths(answers: Path) -> list[Path]:
    """Return all part files that stand beside an answers file."""
    named = re.compile(re.escape(answers.stem) + PART)
    return sorted(path for path in answers.parent.glob("*.jsonl") if named.fullmatch(path.name))


def places_of(measure: Mapping[str, Any]) -> Collection[int]:
    """Return the questions that a measurement added (earlier versions wrote the first one and a count)."""
    if "places" in measure:
        return measure["places"]
    return range(measure["first"], measure["first"] + measure["count"])


class Part:
    """Rows and measurements of one process; the file is there only while it holds something.

    Args:
        path: the part file.
        run_id: identity of the run.

    Raises:
        BadInput: the file belongs to another configuration.
        BadData: a complete line is damaged.
    """

    def __init__(self, path: Path, run_id: str):
        self.path, self.run_id = path, run_id
        self.rows: dict[int, Row] = {}
        self.measures: list[dict[str, Any]] = []
        content = lines.complete_lines(path)
        if content and content[0].get("run_id") != run_id:
            raise BadInput(
                f"{path} holds answers of another configuration. Name another --answers-file, or add --restart to set "
                f"the earlier answers aside and begin anew."
            )
        for line in content[1:]:
            if "row" in line:
                self.rows[line["place"]] = line["row"]
            else:
                self.measures.append(line["measure"])
        # What was measured on a batch is written before its answers; without all of them the batch is asked again.
        self.measures = [m for m in self.measures if all(place in self.rows for place in places_of(m))]

    def heal(self) -> None:
        """Cut off a line that was being written when its process was killed; only the file's own process may."""
        lines.heal(self.path)

    def add(self, rows: Mapping[int, Row], measures: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep answers by the places of their questions, and what was measured while answering them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new: list[dict[str, Any]] = [] if self.path.exists() and self.path.stat().st_size else [{"run_id": self.run_id}]
        new += [{"measure": dict(measure)} for measure in measures]
        new += [{"place": place, "row": row} for place, row in rows.items()]
        lines.append(self.path, new)
        self.rows.update(rows)
        self.measures += [dict(measure) for measure in measures]

    def remove(self) -> None:
        """Delete the file: everything in it stands elsewhere."""
        self.path.unlink(missing_ok=True)


class WorkerAnswers(Part):
    """What a process besides the first keeps: its part file, with the interface that the runner asks through."""

    def __init__(self, answers: Path, run_id: str, process: int):
        path = part_path(answers, process)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lines.Lock(path)
        try:
            lines.heal(path)
            super().__init__(path, run_id)
        except BaseException:
            self._lock.release()
            raise

    @property
    def answered(self) -> set[int]:
        """Places of the questions that are answered here."""
        return set(self.rows)

    @property
    def rows_in_order(self) -> list[Row]:
        """The answers so far, in question order."""
        return [self.rows[place] for place in sorted(self.rows)]

    def record(self, rows: Mapping[int, Row], measure: Mapping[str, Any]) -> None:
        """Keep answers, by place, of questions that have none, and what was measured while answering them."""
        new = {place: row for place, row in rows.items() if place not in self.rows}
        self.add(new, [{"places": list(new), **measure}])

    def __enter__(self) -> WorkerAnswers:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if not self.rows:
            self.remove()
