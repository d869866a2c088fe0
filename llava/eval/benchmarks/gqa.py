"""GQA (testdev-balanced): short answers about scene graphs; exact match after LLaVA's conversion.

Source: LLaVA's `convert_gqa_for_eval.py` and GQA's `eval.py`.
Differences: scene graphs and choices do not exist for testdev, so validity, plausibility, grounding and (without the
entailed questions) consistency are said to be unavailable instead of being 0.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import answers_by_id, percent

UNAVAILABLE = "Validity, plausibility, grounding and consistency are unavailable: their files do not exist for testdev."
OPEN = "query"
"""Structural type of open questions; every other type is binary."""
FREE_STEPS = ("exist", "query: name", "choose name")
"""Operations that the official code does not count as reasoning steps."""


def converted(answer: str) -> str:
    """Return an answer as LLaVA hands it to GQA's scorer: trailing full stops off, lower case, nothing else."""
    return answer.rstrip(".").lower()


def reasoning_steps(question: Mapping[str, Any]) -> int:
    """Return how many operations of a question's program count as a step (official code)."""
    programme = [f"{step.get('operation')}: {step.get('argument')}" for step in question.get("semantic") or ()]
    return sum(not any(free in step for free in FREE_STEPS) for step in programme)


def distribution(pairs: Iterable[tuple[str, str, str]]) -> float | None:
    """Return the chi-square distance of predicted and gold answers per global group, / 100; lower is better.

    Args:
        pairs: (global group, gold answer, prediction) of every question that has a group.
    """
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    for group, answer, prediction in pairs:
        gold[group][answer] += 1
        predicted[group][prediction] += 1
    weighted = sum(
        counts.total() * sum((predicted[group][answer] - n) ** 2 / n for answer, n in counts.items())
        for group, counts in gold.items()
    )
    total = sum(counts.total() for counts in gold.values())
    return weighted / total / 100 if total else None


class Gqa(Benchmark):
    """GQA testdev-balanced in LLaVA's layout."""

    name = "gqa"
    title = "GQA"
    folder = "gqa"
    question_file = "llava_gqa_testdev_balanced.jsonl"
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 62.0, "model zoo (paper: 61.9)", "accuracy"),
            Official("LLaVA-1.5-13B", 63.3, "model zoo", "accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 64.2, "paper", "accuracy"),),
    }

    def image_root(self, root: Path) -> Path:
        return root / "data" / "images"

    def gold_file(self, root: Path) -> Path:
        """Return the official questions with their answers."""
        return root / "data" / "testdev_balanced_questions.json"

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return [self.gold_file(root)]

    def score_files(self, root: Path) -> list[Path]:
        return [self.gold_file(root)]

    def gold(self, root: Path) -> dict[str, dict[str, Any]]:
        """Return the official questions by id.

        Raises:
            BadData: lists every malformed question.
        """
        path = self.gold_file(root)
        content = files.read_json(path, dict)
        optional = {"types": dict, "groups": dict, "semantic": list, "question": str}
        files.checked_items(content.items(), path, {"answer": str, "isBalanced": bool}, optional)
        return {str(key): question for key, question in content.items()}

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return accuracy, binary and open accuracy, the official break-downs and the distribution."""
        everything = self.gold(root)
        gold = {key: question for key, question in everything.items() if question["isBalanced"]}
        found = answers_by_id(rows, everything, f"GQA ({self.gold_file(root)})")
        answers = {key: row for key, row in found.items() if key in gold}
        right = {key: converted(row["text"]) == gold[key]["answer"] for key, row in answers.items()}
        kinds = {key: structural_type(gold[key]) for key in right}
        groups = (gold[key].get("groups") or {} for key in right)
        headline = Metric("accuracy", percent(list(right.values())), "%", samples=len(right))
        metrics = [
            headline,
            _part("binary", [ok for key, ok in right.items() if kinds[key] not in ("", OPEN)]),
            _part("open", [ok for key, ok in right.items() if kinds[key] == OPEN]),
            Metric(
                "distribution",
                distribution(
                    (group["global"], gold[key]["answer"], converted(answers[key]["text"]))
                    for key, group in zip(right, groups, strict=True)
                    if group.get("global") is not None
                ),
            ),
        ]
        for heading, of in _BREAKDOWNS.items():
            parts: dict[str, list[bool]] = defaultdict(list)
            for key, ok in right.items():
                parts[f"{heading} {of(gold[key])}"].append(ok)
            metrics += [_part("accuracy", parts[name], name) for name in sorted(parts, key=_natural)]
        return Score(
            headline,
            tuple(metrics),
            len(answers),
            len(gold),
            tuple(_line(metric) for metric in metrics if metric.value is not None),
            (UNAVAILABLE,),
            tuple(key for key in gold if key not in answers),
        )

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `data/testdev_balanced_predictions.json`, the file that GQA's own tool reads (of the latest run)."""
        path = root / "data" / "testdev_balanced_predictions.json"
        predictions = [{"questionId": str(row["question_id"]), "prediction": converted(row["text"])} for row in rows]
        return [files.write_json(path, predictions)]


def structural_type(question: Mapping[str, Any]) -> str:
    """Return verify, query, choose, logical or compare; empty where the file does not say."""
    return (question.get("types") or {}).get("structural") or ""


_BREAKDOWNS = {
    "structural": structural_type,
    "semantic": lambda question: (question.get("types") or {}).get("semantic") or "",
    "steps": reasoning_steps,
    "words": lambda question: len(question.get("question", "").split()),
}


def _part(name: str, values: list[bool], group: str = "") -> Metric:
    return Metric(name, percent(values), "%", group, len(values))


def _natural(name: str) -> tuple[str, int, str]:
    heading, _, value = name.partition(" ")
    return heading, int(value) if value.isdigit() else 0, value


def _line(metric: Metric) -> str:
    name = metric.group or metric.name.capitalize()
    value = f"{metric.value:.2f}{metric.unit}"
    return f"{name}: {value}" + (f" ({metric.samples} questions)" if metric.group else "")
