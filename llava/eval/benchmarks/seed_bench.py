"""SEED-Bench: multiple choice on images and on one frame of videos; the answer has to be the letter itself.

Source: LLaVA's `convert_seed_for_submission.py`.
Differences: a question type without any right answer scores 0 (the official script stops with an error).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent

MEDIA = ("image", "video")


class SeedBench(Benchmark):
    """SEED-Bench (v1) in LLaVA's layout; video questions show their middle frame."""

    name = "seed_bench"
    title = "SEED-Bench"
    folder = "seed_bench"
    question_file = "llava-seed-bench.jsonl"
    official = {"llava": (Official("LLaVA-1.5-7B", 58.6, "model zoo", "accuracy"),)}

    def image_root(self, root: Path) -> Path:
        return root

    def image_folders(self, root: Path) -> list[Path]:
        return [root / "SEED-Bench-image", root / "SEED-Bench-video-image"]

    def gold_file(self, root: Path) -> Path:
        """Return the official questions with their answers."""
        return root / "SEED-Bench.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.gold_file(root)]

    def score_files(self, root: Path) -> list[Path]:
        return [self.gold_file(root)]

    def gold(self, root: Path) -> tuple[dict[str, dict[str, Any]], dict[Any, str]]:
        """Return (question by id, name of every question type by its id).

        Raises:
            BadData: lists every malformed question.
        """
        path = self.gold_file(root)
        content = files.read_json(path, dict)
        files.checked_items([("the file", content)], path, {"questions": list}, {"question_type": dict})
        questions = content["questions"]
        required = {"question_id": (int, str), "question_type_id": (int, str), "answer": str, "data_type": str}
        files.checked_items(((f"question {n}", item) for n, item in enumerate(questions, start=1)), path, required)
        names = {value: name for name, value in content.get("question_type", {}).items()}
        return {str(question["question_id"]): question for question in questions}, names

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return accuracy per question type, of images, of videos, and of all (headline); no answer is a wrong one."""
        gold, names = self.gold(root)
        answers = answers_by_id(rows, gold, f"SEED-Bench ({self.gold_file(root)})")
        parts: dict[str, list[bool]] = defaultdict(list)
        types: dict[Any, list[bool]] = defaultdict(list)
        for key, question in gold.items():
            right = key in answers and answers[key]["text"] == question["answer"]
            parts["all"].append(right)
            parts[question["data_type"]].append(right)
            types[question["question_type_id"]].append(right)
        headline = Metric("accuracy", percent(parts["all"]), "%", samples=len(parts["all"]))
        media = [Metric(f"{name}_accuracy", percent(parts[name]), "%", samples=len(parts[name])) for name in MEDIA]
        by_type = [
            Metric("accuracy", percent(types[key]), "%", str(names.get(key, key)), len(types[key]))
            for key in sorted(types, key=str)
        ]
        printout = [f"{metric.group}: {metric.value:.2f}%" for metric in by_type]
        printout += [
            f"{name} accuracy: {metric.value:.2f}%"
            for name, metric in zip(("Total", "Image", "Video"), (headline, *media), strict=True)
            if metric.value is not None
        ]
        missing = tuple(key for key in gold if key not in answers)
        notes = []
        if missing:
            share = percent([answers[key]["text"] == gold[key]["answer"] for key in answers]) or 0
            notes.append(
                f"{len(missing)} questions have no answer and count as wrong; of the others {share:.2f} % are right."
            )
        return Score(
            headline, (headline, *media, *by_type), len(answers), len(gold), tuple(printout), tuple(notes), missing
        )

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `answers_upload/<run>.jsonl` for the leaderboard."""
        path = root / "answers_upload" / f"{run_name}.jsonl"
        return [
            files.write_rows(path, ({"question_id": row["question_id"], "prediction": row["text"]} for row in rows))
        ]
