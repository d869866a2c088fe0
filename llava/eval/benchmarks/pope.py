"""POPE: object hallucination, yes/no questions on COCO images in three splits; the score is the mean F1.

Source: official `evaluate.py` of POPE and LLaVA's `eval_pope.py`.
Differences: a split without any predicted yes has precision and F1 0 (the official code divides by zero), and says so;
answers that do not fit the question file are refused instead of being paired with the wrong labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import unanswered

SPLITS = ("adversarial", "popular", "random")
NEGATIVE_WORDS = frozenset({"No", "not", "no"})


def says_yes(text: str) -> bool:
    """Return how the official scorer reads an answer: only the words `No`, `not`, `no` of its first sentence deny."""
    first_sentence = text.split(".")[0].replace(",", "")
    return not NEGATIVE_WORDS & set(first_sentence.split(" "))


@dataclass(frozen=True)
class Counts:
    """Confusion counts with positive = yes, and the fractions made from them."""

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def of(cls, predicted: Sequence[bool], labels: Sequence[bool]) -> Counts:
        pairs = list(zip(predicted, labels, strict=True))
        return cls(
            tp=sum(yes and label for yes, label in pairs),
            fp=sum(yes and not label for yes, label in pairs),
            tn=sum(not yes and not label for yes, label in pairs),
            fn=sum(not yes and label for yes, label in pairs),
        )

    @property
    def total(self) -> int:
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        return (self.tp + self.tn) / self.total

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def yes_ratio(self) -> float:
        return (self.tp + self.fp) / self.total


class Pope(Benchmark):
    """POPE as LLaVA runs it: one merged question file, one label file per split."""

    name = "pope"
    title = "POPE"
    folder = "pope"
    question_file = "llava_pope_test.jsonl"
    ordered = True
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 85.9, "model zoo and paper", "f1"),
            Official("LLaVA-1.5-13B", 85.9, "model zoo", "f1"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 86.5, "paper", "f1"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / "val2014"

    def label_file(self, root: Path, split: str) -> Path:
        """Return the label file of a split (JSON lines in spite of its suffix)."""
        return root / "coco" / f"coco_pope_{split}.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.label_file(root, split) for split in SPLITS]

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return F1, accuracy, precision, recall and yes-ratio per split, and their mean F1 as the headline."""
        questions = self.questions(root)
        by_split = positions_by_split(questions)
        answers: dict[str, list[tuple[int, str]]] = defaultdict(list)
        matched = self.match(root, rows)
        missing = unanswered(questions, matched)
        for row, position in zip(rows, matched, strict=True):
            answers[questions[position].category].append((position, row["text"]))
        metrics: list[Metric] = []
        printout: list[str] = []
        notes: list[str] = []
        for split in SPLITS:
            if split not in answers:
                notes.append(f"Split {split} has no answers and is not part of the mean.")
                continue
            labels = self._labels(root, split, [questions[p] for p in by_split[split]], notes)
            rank = {position: number for number, position in enumerate(by_split[split])}
            predicted = [says_yes(text) for _, text in answers[split]]
            counts = Counts.of(predicted, [labels[rank[position]] for position, _ in answers[split]])
            if counts.tp + counts.fp == 0:
                notes.append(f"Split {split}: no answer says yes, so precision and F1 are set to 0.")
            metrics += split_metrics(split, counts)
            printout += official_lines(split, counts)
        splits_f1 = [metric.value for metric in metrics if metric.name == "f1" and metric.value is not None]
        headline = Metric("f1", sum(splits_f1) / len(splits_f1) if splits_f1 else None, "%", samples=len(rows))
        return Score(headline, tuple(metrics), len(rows), len(questions), tuple(printout), tuple(notes), missing)

    def _labels(self, root: Path, split: str, questions: Sequence[Question], notes: list[str]) -> list[bool]:
        path = self.label_file(root, split)
        rows = files.read_rows(path, {"text": str, "label": str}, {"image": str})
        problems = files.Problems(f"{path} has malformed rows")
        for number, row in enumerate(rows, start=1):
            if row["label"] not in ("yes", "no"):
                problems.add(f"row {number}: label {row['label']!r} is neither 'yes' nor 'no'")
        problems.raise_if_any()
        if len(rows) != len(questions):
            raise BadData(
                f"{path} has {len(rows)} labels, but {self.question_file} has {len(questions)} questions of split "
                f"{split}. Use the label files of POPE commit e3e3926: later ones have other questions."
            )
        others = sum(
            not question.text.startswith(row["text"]) or row.get("image", question.image_name) != question.image_name
            for row, question in zip(rows, questions, strict=True)
        )
        if others:
            notes.append(f"Split {split}: {others} labels are about another image or question than the question file.")
        return [row["label"] == "yes" for row in rows]


def positions_by_split(questions: Sequence[Question]) -> dict[str, list[int]]:
    """Return split -> positions of its questions in the question file, in file order.

    Raises:
        BadData: a question belongs to none of the three splits.
    """
    by_split: dict[str, list[int]] = {split: [] for split in SPLITS}
    problems = files.Problems("Questions with an unknown category")
    for position, question in enumerate(questions):
        if question.category in by_split:
            by_split[question.category].append(position)
        else:
            problems.add(f"question {question.id!r}: {question.category!r} is none of {', '.join(SPLITS)}")
    problems.raise_if_any(BadData)
    return by_split


def split_metrics(split: str, counts: Counts) -> list[Metric]:
    """Return the five official numbers in percent and the four counts of one split."""
    names = ("f1", "accuracy", "precision", "recall", "yes_ratio")
    percent = [Metric(name, 100 * getattr(counts, name), "%", split, counts.total) for name in names]
    return percent + [Metric(name, getattr(counts, name), "", split, counts.total) for name in ("tp", "fp", "tn", "fn")]


def official_lines(split: str, counts: Counts) -> list[str]:
    """Return what the official scorer prints for one split."""
    five = (counts.f1, counts.accuracy, counts.precision, counts.recall, counts.yes_ratio)
    return [
        f"Category: {split}, # samples: {counts.total}",
        f"TP {counts.tp}  FP {counts.fp}  TN {counts.tn}  FN {counts.fn}",
        ", ".join(f"{value:.3f}" for value in five) + "   (f1, acc, precision, recall, yes_ratio)",
    ]
