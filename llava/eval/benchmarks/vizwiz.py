"""VizWiz-VQA: photos and questions of blind users; test is scored by the EvalAI server, val and any labelled set here.

Source: LLaVA's `convert_vizwiz_for_submission.py`; soft accuracy with the EvalAI normaliser (`normaliser.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from llava.errors import BadData
from llava.eval.benchmarks import files, uploads
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent
from llava.eval.normaliser import normalise, soft_accuracy

SERVER = (
    "The official score comes from the EvalAI server (its challenge changes yearly): upload the file --export writes."
)
UNANSWERABLE = "unanswerable"


class VizWiz(Benchmark):
    """VizWiz test in LLaVA's layout."""

    name = "vizwiz"
    title = "VizWiz (test)"
    folder = "vizwiz"
    split: ClassVar[str] = "test"
    needs_labels: ClassVar[bool] = False
    question_file = "llava_test.jsonl"
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 50.0, "EvalAI server; model zoo and paper", "accuracy"),
            Official("LLaVA-1.5-13B", 53.6, "EvalAI server; model zoo", "accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 57.6, "EvalAI server; paper", "accuracy"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / self.split

    def annotation_file(self, root: Path) -> Path:
        """Return the official annotations; those of test have no answers, but a set of one's own may have them."""
        return root / f"{self.split}.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return []

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return the mean soft accuracy where there are labels, else only what is missing."""
        questions = {str(question.id): question for question in self.questions(root)}
        texts = {key: question.text for key, question in questions.items()}
        answers = answers_by_id(rows, texts, f"{self.title} ({self.question_path(root)})", texts)
        missing = tuple(key for key in questions if key not in answers)
        refusals = sum(normalise(row["text"]) == UNANSWERABLE for row in answers.values())
        notes = [f"{refusals} of {len(answers)} answers are {UNANSWERABLE!r}."]
        golds = self.golds(root)
        if golds is None:
            headline = Metric("accuracy", None, "%", samples=len(answers))
            return Score(headline, (), len(answers), len(questions), (), (SERVER, *notes), missing)
        absent = sorted({questions[key].image_name for key in answers} - set(golds))
        if absent:
            heading = f"{self.annotation_file(root)} has no annotation of these images:"
            raise BadData("\n".join([heading, *files.shortened(absent)]))
        values: dict[str, list[float]] = {"": []}
        for key, row in answers.items():
            item = golds[questions[key].image_name]
            value = soft_accuracy(row["text"], [gold["answer"] for gold in item["answers"]])
            values[""].append(value)
            if item.get("answer_type"):
                values.setdefault(f"answer type {item['answer_type']}", []).append(value)
        headline = Metric("accuracy", percent(values.pop("")), "%", samples=len(answers))
        parts = [Metric("accuracy", percent(found), "%", name, len(found)) for name, found in sorted(values.items())]
        printout = [f"Samples: {len(answers)}", f"Accuracy ({self.split}): {headline.value or 0:.2f}%"]
        printout += [f"{metric.group}: {metric.value:.2f}%" for metric in parts]
        return Score(headline, (headline, *parts), len(answers), len(questions), tuple(printout), tuple(notes), missing)

    def golds(self, root: Path) -> dict[str, dict[str, Any]] | None:
        """Return image name -> annotation, or None when there are no human answers.

        Raises:
            BadData: lists every malformed annotation.
        """
        path = self.annotation_file(root)
        if not path.exists():
            return None
        items = files.read_json(path, list)
        names = [f"item {number}" for number in range(1, len(items) + 1)]
        files.checked_items(zip(names, items, strict=True), path, {"image": str}, {"answers": list})
        if not self.needs_labels and not any("answers" in item for item in items):
            return None
        if not items:
            raise BadData(f"{path} has no items.")
        problems = files.Problems(f"{path} has malformed items")
        for name, item in zip(names, items, strict=True):
            found = item.get("answers")
            if not found or not all(isinstance(a, dict) and isinstance(a.get("answer"), str) for a in found):
                problems.add(f"{name}: 'answers' is not a list of objects with a text 'answer'")
        problems.raise_if_any()
        return {item["image"]: item for item in items}

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write and check `answers_upload/<run>.json`: image and normalised answer of every question, in order.

        Raises:
            BadData: a question has no answer.
        """
        questions = self.questions(root)
        ids = [str(question.id) for question in questions]
        answers = answers_by_id(rows, set(ids), f"{self.title} ({self.question_path(root)})")
        uploads.require_complete(set(answers), ids)
        entries = [
            {"image": question.image_name, "answer": normalise(answers[key]["text"])}
            for question, key in zip(questions, ids, strict=True)
        ]
        path = root / "answers_upload" / f"{run_name}.json"
        return [uploads.write(path, entries, [question.image_name for question in questions])]

    def validate_upload(self, root: Path, path: Path) -> list[str]:
        """Return how the file differs from one entry for every question, in order."""
        return uploads.objections(path, "image", [question.image_name for question in self.questions(root)])


class VizWizVal(VizWiz):
    """VizWiz val, scored here."""

    name = "vizwiz_val"
    title = "VizWiz (val)"
    split = "val"
    needs_labels = True
    question_file = "llava_val.jsonl"
    official = {}

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.annotation_file(root)]

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write nothing: the server takes no answers to val."""
        return []

    def validate_upload(self, root: Path, path: Path) -> list[str]:
        """Refuse: the server takes no answers to val."""
        return Benchmark.validate_upload(self, root, path)
