"""What a benchmark is: files in the official layout, questions, a scorer that needs no model, the official number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llava.errors import BadData
from llava.eval.benchmarks import files

SINGLE_WORD = "Answer the question using a single word or phrase."


@dataclass(frozen=True)
class Question:
    """One row of a question file.

    Args:
        id: `question_id` as in the file; it need not be unique (TextVQA, MME).
        image: path of the image.
        text: question as in the file; stored as `prompt` in the answers file.
        prompt: what the model is asked (often the same).
        category: split or sub-task.
        image_name: `image` as in the file.
    """

    id: Hashable
    image: Path
    text: str
    prompt: str
    category: str
    image_name: str


@dataclass(frozen=True)
class Metric:
    """One number of a score.

    Args:
        name: short lower-case key, unique within its group.
        value: the number; None when it is not defined for these answers.
        unit: "%", "points" or "" (counts, fractions).
        group: split or sub-task; empty for the whole benchmark.
        samples: answers the number was computed from.
    """

    name: str
    value: float | None
    unit: str = ""
    group: str = ""
    samples: int | None = None


@dataclass(frozen=True)
class Score:
    """Result of a scorer.

    Args:
        headline: the number the literature quotes.
        metrics: the numbers it comes from.
        samples: answers scored.
        expected: answers that the complete data set has.
        printout: lines in the manner of the official scorer.
        notes: sentences about absent parts, undefined values and the like.
    """

    headline: Metric
    metrics: tuple[Metric, ...]
    samples: int
    expected: int
    printout: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Official:
    """Unpruned reference number of one model: `model`, `value`, `source` and the name of the metric it is."""

    model: str
    value: float
    source: str
    metric: str


Row = dict[str, Any]
"""One line of an answers file: question_id, prompt, text, answer_id, model_id, metadata."""


class Benchmark(ABC):
    """A data set on disk plus an official scorer. Subclasses are stateless; `root` is the folder with the data."""

    name: ClassVar[str]
    title: ClassVar[str]
    folder: ClassVar[str]
    """Folder below `playground/data/eval/`."""
    question_file: ClassVar[str]
    max_new_tokens: ClassVar[int] = 128
    official: ClassVar[dict[str, tuple[Official, ...]]] = {}
    """Model family -> unpruned numbers of the full data set."""

    @abstractmethod
    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        """Return the files the scorer reads besides the question file (for `questions`, where that matters)."""

    def score_files(self, root: Path) -> list[Path]:
        """Return what has to be there to score an answers file."""
        return [root / self.question_file, *self.label_files(root, [])]

    @abstractmethod
    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Score answers, in question order, with the official rules.

        Raises:
            BadData: labels are malformed, or the answers do not belong to this data.
        """

    @abstractmethod
    def image_root(self, root: Path) -> Path:
        """Return the folder that `image` paths of the question file are relative to."""

    def image_path(self, images: Path, name: str) -> Path:
        """Return the path of one image; `images` is the image root."""
        return images / name

    def prompt(self, text: str, family: str) -> str:
        """Return what the model is asked for a question of the file."""
        return text

    def unit(self, question: Question, position: int) -> Hashable:
        """Return a key shared by questions that only make sense together (MME's pairs)."""
        return position

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write the files that the official tool or server wants; return their paths."""
        return []

    # ------------------------------------------------------------------ shared by all

    def questions(self, root: Path, family: str = "llava", limit: int | None = None) -> list[Question]:
        """Return the questions in file order; with `limit`, about that many, spread evenly over the categories.

        Raises:
            BadData: malformed rows, with file and line numbers.
        """
        images = self.image_root(root)
        rows = files.read_rows(
            root / self.question_file, {"question_id": (int, str), "image": str, "text": str}, {"category": str}
        )
        questions = [
            Question(
                row["question_id"],
                self.image_path(images, row["image"]),
                row["text"],
                self.prompt(row["text"], family),
                row.get("category", "default"),
                row["image"],
            )
            for row in rows
        ]
        return questions if limit is None else self.spread(questions, limit)

    def spread(self, questions: Sequence[Question], limit: int) -> list[Question]:
        """Return the first questions of every category in turn until `limit` is reached; units stay whole."""
        units: dict[str, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, question in enumerate(questions):
            units[question.category][self.unit(question, position)].append(position)
        queues = [list(by_key.values()) for by_key in units.values()]
        chosen: list[int] = []
        depth = 0
        while len(chosen) < min(limit, len(questions)):
            for queue in queues:
                if depth < len(queue) and len(chosen) < limit:
                    chosen += queue[depth]
            depth += 1
        return [questions[position] for position in sorted(chosen)]

    def match(self, root: Path, rows: Sequence[Row]) -> list[int]:
        """Return the question-file position of every answer; answers must follow the order of the questions.

        Raises:
            BadData: an answer belongs to no question, is given twice, or stands in another order.
        """
        questions = self.questions(root)
        return match_rows(rows, questions, f"{self.title} ({root / self.question_file})")


def match_rows(rows: Sequence[Row], questions: Sequence[Question], what: str) -> list[int]:
    """Return for every row the position of its question; see `Benchmark.match`."""
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for position, question in enumerate(questions):
        waiting[question.id].append(position)
    unique = {key for key, positions in waiting.items() if len(positions) == 1}
    found: list[int] = []
    problems = files.Problems(f"The answers do not fit {what}")
    for number, row in enumerate(rows, start=1):
        key = row["question_id"]
        candidates = waiting.get(key)
        if candidates is None:
            problems.add(f"answer {number}: no question has the id {key!r}")
            continue
        same_text = [p for p in candidates if key in unique or questions[p].text == row.get("prompt")]
        if not same_text:
            why = "is answered more than once" if key in unique or not candidates else "has another text"
            problems.add(f"answer {number}: question {key!r} {why}")
            continue
        candidates.remove(same_text[0])
        found.append(same_text[0])
    problems.raise_if_any(BadData, "Is this the answers file of this benchmark, and --data the set it was made with?")
    for number, (before, after) in enumerate(zip(found, found[1:], strict=False), start=2):
        if after < before:
            raise BadData(
                f"Answer {number} (question {rows[number - 1]['question_id']!r}) is out of order. The official scorers "
                f"pair answers with labels by position: sort the answers in the order of the question file."
            )
    return found
