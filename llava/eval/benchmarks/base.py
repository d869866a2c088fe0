"""What a benchmark is: files in the official layout, questions, a scorer that needs no model, the official number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from llava.errors import ConfigurationError
from llava.eval.benchmarks import files
from llava.eval.benchmarks.matching import match_rows, repeated
from llava.eval.benchmarks.records import (
    LMMS_FAMILIES,
    OPTION_LETTER,
    SINGLE_WORD,
    Embedded,
    Metric,
    Official,
    Question,
    Row,
    Score,
)

__all__ = [
    "LMMS_FAMILIES",
    "OPTION_LETTER",
    "SINGLE_WORD",
    "Benchmark",
    "Embedded",
    "Metric",
    "Official",
    "Question",
    "Row",
    "Score",
]


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
    ordered: ClassVar[bool] = False
    """Whether the official scorer pairs answers with labels by position."""
    unique_ids: ClassVar[bool] = True
    """Whether a question is known by its `question_id` alone."""

    def question_path(self, root: Path) -> Path:
        """Return the question file."""
        return root / self.question_file

    def image_folders(self, root: Path) -> list[Path]:
        """Return the folders that have to be there before any question can be asked."""
        return [self.image_root(root)]

    @abstractmethod
    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        """Return the files the scorer reads besides the question file (for `questions`, where that matters)."""

    def score_files(self, root: Path) -> list[Path]:
        """Return what has to be there to score an answers file."""
        return [self.question_path(root), *self.label_files(root, [])]

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
        """Write the files that the official tool or server wants; return their paths.

        Raises:
            BadData: the answers are not complete enough for such a file.
        """
        return []

    def validate_upload(self, root: Path, path: Path) -> list[str]:
        """Return what a server would object to in an upload file; an empty list: nothing.

        Raises:
            ConfigurationError: this benchmark is scored here, no server takes a file.
        """
        raise ConfigurationError(f"{self.title} is scored here: there is no upload file to check.")

    def foreign_answers(self, path: Path) -> list[Row] | None:
        """Return the answers of a file in the official tool's own form, or None when it is in LLaVA's."""
        return None

    # ------------------------------------------------------------------ shared by all

    def questions(self, root: Path, family: str = "llava", limit: int | None = None) -> list[Question]:
        """Return the questions in file order; with `limit`, about that many, spread evenly over the categories.

        Raises:
            BadData: malformed rows or ids that stand twice, with file and line numbers.
        """
        questions = self.read_questions(root, family)
        if self.unique_ids:
            problems = files.Problems(f"{self.question_path(root)} has question ids that stand more than once")
            problems.lines += repeated([question.id for question in questions])
            problems.raise_if_any()
        return questions if limit is None else self.spread(questions, limit)

    def read_questions(self, root: Path, family: str) -> list[Question]:
        """Return the questions of LLaVA's question file; benchmarks with a file of another kind replace this."""
        images = self.image_root(root)
        rows = files.read_rows(
            self.question_path(root), {"question_id": (int, str), "image": str, "text": str}, {"category": str}
        )
        return [
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
        """Return the question-file position of every answer.

        Raises:
            BadData: an answer belongs to no question, is given twice, or (where `ordered`) stands in another order.
        """
        questions = self.questions(root)
        return match_rows(rows, questions, f"{self.title} ({self.question_path(root)})", self.ordered)
