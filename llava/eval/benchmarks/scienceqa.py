"""ScienceQA (test): multiple-choice school questions; the number quoted is the accuracy on questions with an image.

Source: LLaVA's `model_vqa_science.py` and `eval_science_qa.py`.
Differences: only questions with an image are asked, as in the released pruning scripts; answers to the others
are scored when a file has them. An answer to no question of the test split is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import OPTION_LETTER, Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent

LETTERS = ("A", "B", "C", "D", "E")
FAILED = "FAILED"
INVALID = -1
IMAGE_TAG = "<image>"
SENTENCE = re.compile(r"The answer is ([A-Z]).")
"""The final dot is any character, as in the official code."""
SPLIT = "test"


def parsed(text: str) -> str:
    """Return the letter the official code reads from an answer, or `FAILED`."""
    if text in LETTERS:
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = SENTENCE.findall(text)
    return found[0] if len(found) == 1 else FAILED


def choice_index(letter: str, n_choices: int) -> int:
    """Return the index of a letter among the choices, -1 when there is no such choice."""
    return LETTERS.index(letter) if letter in LETTERS[:n_choices] else INVALID


class ScienceQa(Benchmark):
    """ScienceQA test in LLaVA's layout."""

    name = "scienceqa"
    title = "ScienceQA"
    folder = "scienceqa"
    question_file = "llava_test_CQM-A.json"
    max_new_tokens = 1024
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 69.5, "paper and re-runs of the current code (model zoo: 66.8)", "image_accuracy"),
            Official("LLaVA-1.5-13B", 71.6, "model zoo", "image_accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 70.1, "paper", "image_accuracy"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / "images" / SPLIT

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [root / "problems.json", root / "pid_splits.json"]

    def score_files(self, root: Path) -> list[Path]:
        return self.label_files(root, [])

    def read_questions(self, root: Path, family: str) -> list[Question]:
        """Return the questions that have an image."""
        path = self.question_path(root)
        items = files.read_json(path, list)
        names = [f"item {number}" for number in range(1, len(items) + 1)]
        required = {"id": (str, int), "conversations": list}
        files.checked_items(zip(names, items, strict=True), path, required, {"image": (str, type(None))})
        problems = files.Problems(f"{path} has malformed items")
        questions = []
        for name, item in zip(names, items, strict=True):
            turns = item["conversations"]
            if not (turns and isinstance(turns[0], dict) and isinstance(turns[0].get("value"), str)):
                problems.add(f"{name}: the first turn of 'conversations' has no text 'value'")
            elif item.get("image"):
                asked = turns[0]["value"].replace(IMAGE_TAG, "").strip()
                prompt = f"{asked}\n{OPTION_LETTER}"
                image = self.image_root(root) / item["image"]
                # The scorer knows questions with an image by the tag in the stored prompt.
                stored = f"{IMAGE_TAG}\n{prompt}"
                questions.append(Question(str(item["id"]), image, stored, prompt, "default", item["image"]))
        problems.raise_if_any()
        return questions

    def problems(self, root: Path) -> dict[str, dict[str, Any]]:
        """Return the problems of the test split, in its order, by id.

        Raises:
            BadData: malformed problems, or a split that names unknown ones.
        """
        problem_file, split_file = self.label_files(root, [])
        everything = files.read_json(problem_file, dict)
        ids = files.read_json(split_file, dict).get(SPLIT)
        if not isinstance(ids, list):
            raise BadData(f"{split_file} has no list {SPLIT!r}.")
        absent = [str(key) for key in ids if str(key) not in everything]
        if absent:
            lines = files.shortened(absent)
            raise BadData("\n".join([f"{split_file} names problems that {problem_file} does not have:", *lines]))
        chosen = {str(key): everything[str(key)] for key in ids}
        files.checked_items(chosen.items(), problem_file, {"choices": list, "answer": int}, {"question": str})
        return chosen

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return accuracy over the test split and over its questions with an image (headline)."""
        problems = self.problems(root)
        results = self.results(root, rows, problems)
        right = {key: result["index"] == problems[key]["answer"] for key, result in results.items()}
        with_image = [key for key, result in results.items() if result["multimodal"]]
        unanswered_images = [key for key in problems if not results[key]["answered"] and problems[key].get("image")]
        total = Metric("accuracy", percent(list(right.values())), "%", samples=len(right))
        image = Metric("image_accuracy", percent([right[key] for key in with_image]), "%", samples=len(with_image))
        correct = sum(right.values())
        printout = (
            f"Total: {len(right)}, Correct: {correct}, Accuracy: {total.value or 0:.2f}%, "
            f"IMG-Accuracy: {image.value or 0:.2f}%"
        )
        text_only = sum(not result["answered"] for result in results.values()) - len(unanswered_images)
        notes = []
        if text_only:
            notes.append(
                f"{text_only} questions without an image have no answer and count as wrong in the total accuracy: "
                f"quote the image accuracy."
            )
        failed = sum(result["answered"] and result["letter"] == FAILED for result in results.values())
        if failed:
            notes.append(f"{failed} answers give no letter in a form that the official code reads; they are wrong.")
        expected = len(with_image) + len(unanswered_images)
        return Score(
            image, (image, total), len(with_image), expected, (printout,), tuple(notes), tuple(unanswered_images)
        )

    def results(
        self, root: Path, rows: Sequence[Row], problems: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Return for every problem: answered, text, letter, index (-1: none), multimodal."""
        answers = answers_by_id(rows, problems, f"ScienceQA, split {SPLIT} ({root / 'problems.json'})")
        results = {}
        for key, problem in problems.items():
            row = answers.get(key, {"text": FAILED, "prompt": "Unknown"})
            letter = parsed(row["text"])
            results[key] = {
                "answered": key in answers,
                "text": row["text"],
                "prompt": row.get("prompt", ""),
                "letter": letter,
                "index": choice_index(letter, len(problem["choices"])),
                # The official rule; a file without prompts leaves only the problem itself to go by.
                "multimodal": IMAGE_TAG in row["prompt"] if "prompt" in row else bool(problem.get("image")),
            }
        return results

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `answers/<run>_output.jsonl` (right and wrong answers) and `<run>_result.json` (indices and texts)."""
        problems = self.problems(root)
        results = self.results(root, rows, problems)
        parts: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
        for key, result in results.items():
            gold = problems[key]["answer"]
            parts["correct" if result["index"] == gold else "incorrect"].append(
                {
                    "question_id": key,
                    "parsed_ans": result["letter"],
                    "ground_truth": LETTERS[gold],
                    "question": result["prompt"],
                    "pred": result["text"],
                    "is_multimodal": result["multimodal"],
                }
            )
        correct = len(parts["correct"])
        summary = {
            "acc": 100 * correct / len(results),
            "correct": correct,
            "count": len(results),
            "results": {key: result["index"] for key, result in results.items()},
            "outputs": {key: result["text"] for key, result in results.items()},
        }
        folder = root / "answers"
        return [
            files.write_rows(folder / f"{run_name}_output.jsonl", [parts]),
            files.write_json(folder / f"{run_name}_result.json", summary, indent=2),
        ]
