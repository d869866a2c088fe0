"""TextVQA: reading text in images; VQA soft accuracy with the EvalAI normaliser.

Source: LLaVA's `eval_textvqa.py` and the official TextVQA evaluation (`normaliser.py`).
Differences: answers that are missing or given twice are reported; the official evaluator does not count them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import LMMS_FAMILIES, SINGLE_WORD, Benchmark, Metric, Official, Question, Row, Score
from llava.eval.normaliser import soft_accuracy

OCR_HINT = "Reference OCR token: "
HUMAN_ANSWERS = 10

Key = tuple[str, str]
"""(image id, lower-cased question): the pair that names an annotation."""


def question_of(prompt: str) -> str:
    """Return the question inside a stored prompt, lower-cased.

    Raises:
        ValueError: the prompt has none of the known forms.
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        _, found, rest = prompt.partition("Question: ")
        question, ended, _ = rest.partition(" Short answer:")
        if found and ended:
            return question.lower()
    elif OCR_HINT in prompt and len(lines) == 3:
        return (lines[1] if prompt.startswith(OCR_HINT) else lines[0]).lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise ValueError("its prompt is neither question, OCR hint and instruction nor question and instruction")


class TextVqa(Benchmark):
    """TextVQA 0.5.1, validation."""

    name = "textvqa"
    title = "TextVQA"
    folder = "textvqa"
    question_file = "llava_textvqa_val_v051_ocr.jsonl"
    unique_ids = False
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 58.2, "model zoo and paper", "accuracy"),
            Official("LLaVA-1.5-13B", 61.3, "model zoo", "accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 64.9, "model zoo, without the OCR hint", "accuracy"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / "train_images"

    def annotation_file(self, root: Path) -> Path:
        return root / "TextVQA_0.5.1_val.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.annotation_file(root)]

    def score_files(self, root: Path) -> list[Path]:
        return [self.annotation_file(root)]

    def prompt(self, text: str, family: str) -> str:
        """LLaVA-1.5 sees the OCR hint; LLaVA-Next and Qwen-VL do not; Qwen-VL gets the question capitalised."""
        if family != "llava_next" and family not in LMMS_FAMILIES:
            return text
        lines = [line for line in text.split("\n") if not line.startswith(OCR_HINT)]
        if family in LMMS_FAMILIES:
            return f"{lines[0].capitalize()}\n{SINGLE_WORD}"
        return "\n".join(lines)

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return the mean soft accuracy in percent; each answer is looked up by image id and question."""
        annotations = read_annotations(self.annotation_file(root))
        values: dict[Key, float] = {}
        problems = files.Problems(f"The answers do not fit {self.annotation_file(root)}")
        for number, row in enumerate(rows, start=1):
            try:
                key = (str(row["question_id"]), question_of(row.get("prompt", "")))
            except ValueError as error:
                problems.add(f"answer {number}: {error}")
                continue
            if key not in annotations:
                problems.add(f"answer {number}: no annotation for image {key[0]!r} and question {key[1]!r}")
            elif key in values:
                problems.add(f"answer {number}: image {key[0]!r}, question {key[1]!r} is answered more than once")
            else:
                values[key] = soft_accuracy(row["text"], annotations[key])
        problems.raise_if_any(BadData, "Is this the answers file of TextVQA, and --data the set it was made with?")
        accuracy = 100 * sum(values.values()) / len(values) if values else None
        headline = Metric("accuracy", accuracy, "%", samples=len(values))
        printout = (f"Samples: {len(values)}", f"Accuracy: {0.0 if accuracy is None else accuracy:.2f}%")
        missing = tuple(f"{image}: {question}" for image, question in annotations if (image, question) not in values)
        return Score(headline, (headline,), len(values), len(annotations), printout, missing=missing)


def read_annotations(path: Path) -> dict[Key, list[str]]:
    """Return (image id, lower-cased question) -> ten human answers.

    Raises:
        BadData: lists every malformed item by its number.
    """
    try:
        content = json.loads(files.read_text(path))
    except json.JSONDecodeError as error:
        raise BadData(f"{path} is not JSON: {error.msg.removesuffix(' at')} at line {error.lineno}.") from error
    items = content.get("data") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise BadData(f"{path} has no list 'data' of annotations.")
    annotations: dict[Key, list[str]] = {}
    problems = files.Problems(f"{path} has malformed items in 'data'")
    for number, item in enumerate(items, start=1):
        wrong = _wrong(item)
        if wrong:
            problems.add(f"item {number}: {wrong}")
            continue
        key = (str(item["image_id"]), item["question"].lower())
        if key in annotations:
            problems.add(f"item {number}: image {key[0]!r}, question {key[1]!r} stands twice")
        annotations[key] = item["answers"]
    problems.raise_if_any()
    return annotations


def _wrong(item: object) -> str:
    if not isinstance(item, dict):
        return "not an object"
    absent = [name for name in ("image_id", "question", "answers") if name not in item]
    if absent:
        return f"without {', '.join(absent)}"
    answers = item["answers"]
    if not isinstance(item["question"], str):
        return "question is not text"
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        return "answers is not a list of texts"
    return "" if len(answers) == HUMAN_ANSWERS else f"{len(answers)} answers instead of {HUMAN_ANSWERS}"
