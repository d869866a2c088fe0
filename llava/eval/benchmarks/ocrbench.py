"""OCRBench (v1): reading text in 1000 images; points for answers that contain the gold text.

Source: `OCRBench/example.py` of the official repository.
Differences: any subset gets its summary (the official script prints it for exactly 1000 items); a run is continued from
its own answers file, not from the file in `results/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import LMMS_FAMILIES, SINGLE_WORD, Benchmark, Metric, Official, Question, Row, Score

TYPES = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
)
TEXT_RECOGNITION = TYPES[:6]
FORMULAS = "HME100k"
"""The data set whose case counts and whose spaces do not."""


def matches(dataset: str, gold: str | Sequence[str], prediction: str) -> bool:
    """Return whether any gold text stands in the prediction, by the rule of the data set."""
    golds = [gold] if isinstance(gold, str) else gold
    found = _comparable(dataset, prediction)
    return any(_comparable(dataset, one) in found for one in golds)


def _comparable(dataset: str, text: str) -> str:
    if dataset == FORMULAS:
        return text.strip().replace("\n", " ").replace(" ", "")
    return text.lower().strip().replace("\n", " ")


class OcrBench(Benchmark):
    """OCRBench in the official repository's layout; `question_id` is `<dataset>/<id>`."""

    name = "ocrbench"
    title = "OCRBench"
    folder = "OCRBench"
    question_file = "OCRBench/OCRBench.json"
    unique_ids = False
    official = {
        "llava": (Official("LLaVA-1.5-7B", 297, "OCRBench leaderboard and paper", "points"),),
        "llava_next": (Official("LLaVA-Next-7B", 517, "paper", "points"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / "OCRBench_Images"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return []

    def prompt(self, text: str, family: str) -> str:
        """LLaVA gets the single-word sentence (which `text` ends with), lmms-eval's families the bare question."""
        return text.removesuffix(f"\n{SINGLE_WORD}") if family in LMMS_FAMILIES else text

    def items(self, root: Path) -> list[dict[str, Any]]:
        """Return the official items.

        Raises:
            BadData: lists every malformed item.
        """
        path = self.question_path(root)
        items = files.read_json(path, list)
        _check(items, path, {})
        if not items:
            raise BadData(f"{path} has no items.")
        return items

    def read_questions(self, root: Path, family: str) -> list[Question]:
        images = self.image_root(root)
        return [
            Question(
                identity(item),
                images / item["image_path"],
                asked(item),
                self.prompt(asked(item), family),
                item["type"],
                item["image_path"],
            )
            for item in self.items(root)
        ]

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return the points: one for every right answer, none where there is no answer; also per type."""
        items = self.items(root)
        results = self._results(root, rows, items)
        points: dict[str, list[int]] = {name: [] for name in TYPES}
        for item, result in zip(items, results, strict=True):
            points.setdefault(item["type"], []).append(result[1])
        headline = Metric("points", float(sum(result[1] for result in results)), "points", samples=len(rows))
        reading = [point for name in TEXT_RECOGNITION for point in points[name]]
        metrics = [headline, Metric("text_recognition", float(sum(reading)), "points", samples=len(reading))]
        metrics += [Metric("points", float(sum(p)), "points", name, len(p)) for name, p in points.items() if p]
        printout = [f"Text Recognition (total {len(reading)}): {sum(reading)}"]
        printout += [f"{name} (total {len(p)}): {sum(p)}" for name, p in points.items() if p]
        printout.append(f"Final Score (total {len(items)}): {sum(result[1] for result in results)}")
        missing = tuple(str(identity(item)) for item, result in zip(items, results, strict=True) if result[0] is None)
        return Score(headline, tuple(metrics), len(rows), len(items), tuple(printout), (), missing)

    def _results(
        self, root: Path, rows: Sequence[Row], items: Sequence[Mapping[str, Any]]
    ) -> list[tuple[str | None, int]]:
        """Return (prediction or None, 0 or 1) of every item."""
        results: list[tuple[str | None, int]] = [(None, 0)] * len(items)
        for row, position in zip(rows, self.match(root, rows), strict=True):
            item = items[position]
            results[position] = row["text"], int(matches(item["dataset_name"], item["answers"], row["text"]))
        return results

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `results/<run>_OCRBench.json`: the official items with `predict` and `result`."""
        items = self.items(root)
        content = [
            dict(item) if text is None else {**item, "predict": text, "result": right}
            for item, (text, right) in zip(items, self._results(root, rows, items), strict=True)
        ]
        return [files.write_json(root / "results" / f"{run_name}_OCRBench.json", content, indent=4)]

    def foreign_answers(self, path: Path) -> list[Row] | None:
        """Return the predictions of an official results file (a JSON array with `predict`)."""
        if not files.read_text(path).lstrip().startswith("["):
            return None
        items = files.read_json(path, list)
        _check(items, path, {"predict": str})
        return [
            {"question_id": identity(item), "prompt": asked(item), "text": item["predict"]}
            for item in items
            if "predict" in item
        ]


def identity(item: Mapping[str, Any]) -> str:
    """Return what an item is called in an answers file; ids alone stand for several items."""
    return f"{item['dataset_name']}/{item['id']}"


def asked(item: Mapping[str, Any]) -> str:
    """Return the question with LLaVA's sentence."""
    return f"{item['question']}\n{SINGLE_WORD}"


def _check(items: Sequence[Any], path: Path, optional: files.Kinds) -> None:
    required = {
        "dataset_name": str,
        "id": (int, str),
        "image_path": str,
        "question": str,
        "answers": (str, list),
        "type": str,
    }
    files.checked_items(((f"item {n}", item) for n, item in enumerate(items, start=1)), path, required, optional)
    problems = files.Problems(f"{path} has malformed items")
    for number, item in enumerate(items, start=1):
        golds = [item["answers"]] if isinstance(item["answers"], str) else item["answers"]
        if not golds or not all(isinstance(one, str) and one.strip() for one in golds):
            problems.add(f"item {number}: answers {json.dumps(item['answers'])} are not texts")
    problems.raise_if_any()
