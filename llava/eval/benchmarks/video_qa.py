"""TGIF-QA, MSVD-QA, MSRVTT-QA, zero-shot: open questions on clips, judged by a language model; local metrics beside it.

Source: Video-ChatGPT's protocol as Video-LLaVA runs it (`run_inference_video_qa.py`, `eval_video_qa.py`); the judge is
in `llava/eval/judge.py`. Differences: golds are joined by question id (the original takes wrong golds with several
chunks); a video that is not there is listed as missing; no random flip. The local metrics are not the official ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent
from llava.eval.normaliser import normalise

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv")
"""Searched in this order."""
LOCAL = (
    "Local metrics: local_em (equal) and local_contains (the gold answer's words stand in the prediction). They are "
    "not the GPT-judged accuracy of the literature; see: python -m llava.eval judge --help"
)
FOREIGN = {"id": (int, str), "question": str, "pred": str}


def contains(prediction: str, gold: str) -> bool:
    """Return whether the normalised gold is a sequence of whole words of the normalised prediction."""
    words, wanted = normalise(prediction).split(), normalise(gold).split()
    if not wanted:
        return not words
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))


class VideoQa(Benchmark):
    """One of the three sets in Video-ChatGPT's layout; subclasses name it."""

    videos: ClassVar[str]
    """Folder with the clips, below the set's folder."""
    question_file = "test_q.json"
    max_new_tokens = 1024

    def image_root(self, root: Path) -> Path:
        return root / self.videos

    def image_path(self, images: Path, name: str) -> Path:
        """Return the clip with the first extension that is there."""
        found = (images / f"{name}{extension}" for extension in EXTENSIONS)
        return next((path for path in found if path.exists()), images / f"{name}{EXTENSIONS[0]}")

    def gold_file(self, root: Path) -> Path:
        """Return the file with the gold answers."""
        return root / "test_a.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.gold_file(root)]

    def read_questions(self, root: Path, family: str) -> list[Question]:
        folder = self.image_root(root)
        return [
            Question(
                item["question_id"],
                self.image_path(folder, item["video_name"]),
                item["question"],
                item["question"],
                "default",
                item["video_name"],
                media="video",
            )
            for item in self._asked(root)
        ]

    def _asked(self, root: Path) -> list[dict[str, Any]]:
        path = self.question_path(root)
        items = files.read_json(path, list)
        names = (f"item {number}" for number in range(1, len(items) + 1))
        required = {"video_name": str, "question": str, "question_id": (int, str)}
        files.checked_items(zip(names, items, strict=True), path, required)
        return items

    def gold(self, root: Path) -> dict[str, str]:
        """Return question id -> gold answer, joined by id where the answer file has ids, else by position.

        Raises:
            BadData: the two files do not fit, or items are malformed.
        """
        ids = [str(item["question_id"]) for item in self._asked(root)]
        path = self.gold_file(root)
        items = files.read_json(path, list)
        names = (f"item {number}" for number in range(1, len(items) + 1))
        files.checked_items(zip(names, items, strict=True), path, {"answer": str}, {"question_id": (int, str)})
        if items and all("question_id" in item for item in items):
            by_id = {str(item["question_id"]): item["answer"] for item in items}
            absent = [key for key in ids if key not in by_id]
            if absent:
                raise BadData("\n".join([f"{path} has no answer to these questions:", *files.shortened(absent)]))
            return {key: by_id[key] for key in ids}
        if len(items) != len(ids):
            raise BadData(f"{path} has {len(items)} answers, {self.question_file} {len(ids)} questions, and no ids.")
        return dict(zip(ids, (item["answer"] for item in items), strict=True))

    def matched(self, root: Path, rows: Sequence[Row]) -> tuple[dict[str, Row], dict[str, str]]:
        """Return (answer by question id, gold answer by question id)."""
        gold = self.gold(root)
        texts = {str(item["question_id"]): item["question"] for item in self._asked(root)}
        return answers_by_id(rows, texts, f"{self.title} ({self.question_path(root)})", texts), gold

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return the two local metrics; `judge.score` has the official formulas."""
        answers, gold = self.matched(root, rows)
        equal = [normalise(row["text"]) == normalise(gold[key]) for key, row in answers.items()]
        held = [contains(row["text"], gold[key]) for key, row in answers.items()]
        headline = Metric("local_contains", percent(held), "%", samples=len(held))
        metrics = (headline, Metric("local_em", percent(equal), "%", samples=len(equal)))
        printout = tuple(f"{metric.name}: {metric.value or 0:.2f}%" for metric in metrics)
        missing = tuple(key for key in gold if key not in answers)
        return Score(headline, metrics, len(answers), len(gold), printout, (LOCAL,), missing)

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `<run>/merge.jsonl` in Video-LLaVA's form: id, question, answer (gold), pred."""
        answers, gold = self.matched(root, rows)
        content = (
            {
                "id": row["question_id"],
                "question": row.get("prompt", ""),
                "answer": gold[key],
                "pred": row["text"],
            }
            for key, row in answers.items()
        )
        return [files.write_rows(root / run_name / "merge.jsonl", content)]

    def foreign_answers(self, path: Path) -> list[Row] | None:
        """Return the answers of a file in Video-LLaVA's form."""
        first = files.read_text(path).lstrip().partition("\n")[0]
        try:
            row = json.loads(first)
        except json.JSONDecodeError:
            return None
        if not isinstance(row, dict) or "question_id" in row or not {"id", "pred"} & row.keys():
            return None
        rows = files.read_rows(path, FOREIGN)
        return [{"question_id": row["id"], "prompt": row["question"], "text": row["pred"]} for row in rows]


def _official(own: str, paper: float) -> Mapping[str, tuple[Official, ...]]:
    source = f"paper's vanilla row, GPT-judged (Video-LLaVA's own report: {own})"
    return {"video_llava": (Official("Video-LLaVA-7B", paper, source, "gpt_accuracy"),)}


class TgifQa(VideoQa):
    """TGIF-QA, frame questions."""

    name = "tgif_qa"
    title = "TGIF-QA"
    folder = "GPT_Zero_Shot_QA/TGIF_Zero_Shot_QA"
    videos = "mp4"
    official = dict(_official("70.0", 47.0))


class MsvdQa(VideoQa):
    """MSVD-QA."""

    name = "msvd_qa"
    title = "MSVD-QA"
    folder = "GPT_Zero_Shot_QA/MSVD_Zero_Shot_QA"
    videos = "videos"
    official = dict(_official("70.7", 70.2))


class MsrvttQa(VideoQa):
    """MSRVTT-QA."""

    name = "msrvtt_qa"
    title = "MSRVTT-QA"
    folder = "GPT_Zero_Shot_QA/MSRVTT_Zero_Shot_QA"
    videos = "videos/all"
    official = dict(_official("59.2", 57.3))
