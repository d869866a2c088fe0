"""MM-Vet: 218 open questions; a GPT-4 judge grades the result file that is written here.

Source: LLaVA's `convert_mmvet_for_eval.py`; grading with the authors' few-shot prompt is not part of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id

JUDGED = "MM-Vet has no local score: give the result file to the authors' GPT-4 grader (write it with --export)."


class MmVet(Benchmark):
    """MM-Vet v1 in LLaVA's layout."""

    name = "mm_vet"
    title = "MM-Vet"
    folder = "mm-vet"
    question_file = "llava-mm-vet.jsonl"
    max_new_tokens = 1024
    official = {"llava": (Official("LLaVA-1.5-7B", 31.1, "model zoo, graded by GPT-4", "gpt4_score"),)}

    def image_root(self, root: Path) -> Path:
        return root / "images"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return []

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return no number, only whether every question is answered."""
        answers, questions = self._answers(root, rows), self.questions(root)
        missing = tuple(str(question.id) for question in questions if str(question.id) not in answers)
        headline = Metric("gpt4_score", None, "%", samples=len(answers))
        return Score(headline, (), len(answers), len(questions), notes=(JUDGED,), missing=missing)

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `results/<run>.json`: `v1_<question_id>` -> answer.

        Raises:
            BadData: a question has no answer.
        """
        answers = self._answers(root, rows)
        ids = [str(question.id) for question in self.questions(root)]
        absent = [key for key in ids if key not in answers]
        if absent:
            raise BadData(f"The result file needs an answer to every question; {len(absent)} of {len(ids)} have none.")
        content = {f"v1_{key}": answers[key]["text"] for key in ids}
        return [files.write_json(root / "results" / f"{run_name}.json", content, indent=2)]

    def _answers(self, root: Path, rows: Sequence[Row]) -> dict[str, Row]:
        texts = {str(question.id): question.text for question in self.questions(root)}
        return answers_by_id(rows, texts, f"MM-Vet ({self.question_path(root)})", texts)
