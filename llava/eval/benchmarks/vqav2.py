"""VQAv2: open questions on COCO images; test-dev is scored by the EvalAI server, val and any labelled set here.

Source: LLaVA's `convert_vqav2_for_submission.py` and `vqaEval.py` of VQA v2.
The server sees EvalAI-normalised answers, so `accuracy` is computed from them; `accuracy_raw` is the same rule on the
answers as they stand. A result on val is called val and is not comparable with test-dev.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from llava.errors import BadData
from llava.eval.benchmarks import files, uploads
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent
from llava.eval.normaliser import normalise, official_accuracy

SERVER = "The official score comes from the EvalAI server (challenge 830, test-dev): upload the file --export writes."


class VqaV2(Benchmark):
    """VQAv2 test-dev in LLaVA's layout."""

    name = "vqav2"
    title = "VQAv2 (test-dev)"
    folder = "vqav2"
    split: ClassVar[str] = "test-dev2015"
    images: ClassVar[str] = "test2015"
    question_file = "llava_vqav2_mscoco_test-dev2015.jsonl"
    uploaded: ClassVar[str | None] = "llava_vqav2_mscoco_test2015.jsonl"
    """File with the ids of all questions of the upload, answered or not."""
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 78.5, "EvalAI server; model zoo and paper", "accuracy"),
            Official("LLaVA-1.5-13B", 80.0, "EvalAI server; model zoo", "accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 81.8, "EvalAI server; paper", "accuracy"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / self.images

    def annotation_file(self, root: Path) -> Path:
        """Return the labels; for test-dev they are not public, but a set of one's own may have them."""
        return root / f"v2_mscoco_{self.split}_annotations.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [root / self.uploaded] if self.uploaded else [self.annotation_file(root)]

    def score_files(self, root: Path) -> list[Path]:
        return [self.question_path(root)] if self.uploaded else [self.question_path(root), self.annotation_file(root)]

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return accuracy per answer type and question type where there are labels, else only what is missing."""
        questions = {str(question.id): question.text for question in self.questions(root)}
        answers = answers_by_id(rows, questions, f"{self.title} ({self.question_path(root)})", questions)
        missing = tuple(key for key in questions if key not in answers)
        path = self.annotation_file(root)
        if self.uploaded and not path.exists():
            headline = Metric("accuracy", None, "%", samples=len(answers))
            return Score(headline, (), len(answers), len(questions), notes=(SERVER,), missing=missing)
        annotations = read_annotations(path)
        absent = [key for key in answers if key not in annotations]
        if absent:
            raise BadData("\n".join([f"{path} has no annotation for these questions:", *files.shortened(absent)]))
        values: dict[str, list[float]] = defaultdict(list)
        raw = []
        for key, row in answers.items():
            annotation = annotations[key]
            golds = [gold["answer"] for gold in annotation["answers"]]
            value = official_accuracy(normalise(row["text"]), golds)
            raw.append(official_accuracy(row["text"], golds))
            values[""].append(value)
            values[f"answer type {annotation.get('answer_type', '')}"].append(value)
            values[f"question type {annotation.get('question_type', '')}"].append(value)
        headline = Metric("accuracy", percent(values.pop("", [])), "%", samples=len(raw))
        raw_metric = Metric("accuracy_raw", percent(raw), "%", samples=len(raw))
        parts = [Metric("accuracy", percent(values[name]), "%", name, len(values[name])) for name in sorted(values)]
        printout = [f"Overall accuracy ({self.split}): {headline.value or 0:.2f}"]
        printout += [f"{metric.group}: {metric.value:.2f}" for metric in parts]
        notes = []
        if raw_metric.value != headline.value:
            notes.append(
                f"Without the normalisation that LLaVA applies before it uploads: {raw_metric.value:.2f} % "
                f"(case counts where all humans agree)."
            )
        metrics = (headline, raw_metric, *parts)
        return Score(headline, metrics, len(answers), len(questions), tuple(printout), tuple(notes), missing)

    def upload_keys(self, root: Path) -> list[Any]:
        """Return the question ids of the upload, in order."""
        rows = files.read_rows(root / (self.uploaded or self.question_file), {"question_id": (int, str)})
        return [row["question_id"] for row in rows]

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write and check `answers_upload/<question file>/<run>.json`: every question of the test set, most empty.

        Raises:
            BadData: a question of the split has no answer.
        """
        if not self.uploaded:
            return []
        questions = [str(question.id) for question in self.questions(root)]
        answers = answers_by_id(rows, set(questions), f"{self.title} ({self.question_path(root)})")
        uploads.require_complete(set(answers), questions)
        texts = {key: normalise(row["text"]) for key, row in answers.items()}
        keys = self.upload_keys(root)
        absent = sorted(set(texts) - {str(key) for key in keys})
        if absent:
            raise BadData("\n".join([f"{self.uploaded} lacks questions of the split:", *files.shortened(absent)]))
        entries = [{"question_id": key, "answer": texts.get(str(key), "")} for key in keys]
        path = root / "answers_upload" / Path(self.question_file).stem / f"{run_name}.json"
        return [uploads.write(path, entries, keys)]

    def validate_upload(self, root: Path, path: Path) -> list[str]:
        """Return how the file differs from one entry for every question of the test set, in order."""
        if not self.uploaded:
            return super().validate_upload(root, path)
        found = uploads.objections(path, "question_id", self.upload_keys(root))
        if not found:
            split = {question.id for question in self.questions(root)}
            empty = sum(entry["question_id"] in split and not entry["answer"] for entry in files.read_json(path, list))
            if empty == len(split):
                found.append(f"none of the {len(split)} questions of the split has an answer")
        return found


class VqaV2Val(VqaV2):
    """VQAv2 val, scored here."""

    name = "vqav2_val"
    title = "VQAv2 (val)"
    split = "val2014"
    images = "val2014"
    question_file = "llava_vqav2_mscoco_val2014.jsonl"
    uploaded = None
    official = {}


def read_annotations(path: Path) -> dict[str, dict[str, Any]]:
    """Return question id -> annotation with its human answers.

    Raises:
        BadData: lists every malformed annotation.
    """
    content = files.read_json(path, dict)
    files.checked_items([("the file", content)], path, {"annotations": list})
    items = content["annotations"]
    names = [f"annotation {number}" for number in range(1, len(items) + 1)]
    files.checked_items(zip(names, items, strict=True), path, {"question_id": (int, str), "answers": list})
    problems = files.Problems(f"{path} has malformed annotations")
    for name, item in zip(names, items, strict=True):
        if not item["answers"] or not all(
            isinstance(answer, dict) and isinstance(answer.get("answer"), str) for answer in item["answers"]
        ):
            problems.add(f"{name}: 'answers' is not a list of objects with a text 'answer'")
    problems.raise_if_any()
    return {str(item["question_id"]): item for item in items}
