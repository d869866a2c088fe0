"""MME: 14 yes/no sub-tasks, two questions per image; the paper reports perception + cognition.

Source: LLaVA's `convert_answer_to_mme.py` and MME's `eval_tool/calculation.py`.
Differences: line breaks and tabs inside an answer become spaces; images whose two answers are not adjacent are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import SINGLE_WORD, Benchmark, Metric, Official, Question, Row, Score
from llava.eval.benchmarks.matching import unanswered

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
YES_OR_NO = "Please answer yes or no."
QUESTIONS_PER_IMAGE = 2


@dataclass(frozen=True)
class Line:
    """One line of MME's answer format: text file of the image, official question, gold, the model's answer."""

    file: str
    question: str
    gold: str
    answer: str

    @property
    def correct(self) -> bool:
        return answer_label(self.answer) == self.gold.lower()

    def __str__(self) -> str:
        return "\t".join((self.file, self.question, self.gold, self.answer))


def answer_label(answer: str) -> str:
    """Return `yes`, `no` or `other`, as the official tool reads an answer: by its first four characters."""
    answer = answer.lower()
    if answer in ("yes", "no"):
        return answer
    return "yes" if "yes" in answer[:4] else "no" if "no" in answer[:4] else "other"


def category_score(lines: Sequence[Line]) -> tuple[float, float]:
    """Return (accuracy, accuracy over images with both answers right), each in percent; lines come in pairs.

    Raises:
        BadData: an odd number of lines, or a pair that mixes two images.
    """
    if not lines or len(lines) % QUESTIONS_PER_IMAGE:
        raise BadData(f"{len(lines)} answers cannot be grouped in pairs: MME asks two questions about every image.")
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    for first, second in pairs:
        if first.file != second.file:
            raise BadData(
                f"The answers about {first.file} and {second.file} are mixed up: keep the order of the question file."
            )
    right = sum(line.correct for line in lines)
    both_right = sum(first.correct and second.correct for first, second in pairs)
    return 100 * right / len(lines), 100 * both_right / len(pairs)


class Mme(Benchmark):
    """MME as LLaVA runs it, scored with the official rules."""

    name = "mme"
    title = "MME"
    folder = "MME"
    question_file = "llava_mme.jsonl"
    ordered = True
    unique_ids = False
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 1862.0, "paper", "mme"),
            Official("LLaVA-1.5-7B", 1510.7, "model zoo", "perception"),
            Official("LLaVA-1.5-13B", 1531.3, "model zoo", "perception"),
        ),
        "llava_next": (
            Official("LLaVA-Next-7B", 1851.0, "paper", "mme"),
            Official("LLaVA-Next-7B", 1519.0, "model zoo", "perception"),
        ),
    }

    def image_root(self, root: Path) -> Path:
        release = root / "MME_Benchmark_release_version"
        deeper = release / "MME_Benchmark"
        return deeper if deeper.is_dir() else release

    def image_path(self, images: Path, name: str) -> Path:
        """Return the image where the release has it: in the category's folder or in its `images` folder."""
        direct = images / name
        if direct.exists():
            return direct
        category, file = name.split("/")[0], name.split("/")[-1]
        others = (images / category / "images" / file, images / category / file)
        return next((path for path in others if path.exists()), direct)

    def unit(self, question: Question, position: int) -> Hashable:
        return question.image_name

    def gold_file(self, images: Path, question_id: str) -> Path:
        """Return the text file with the two official questions and answers of an image."""
        category, file = category_and_file(question_id)
        folder = images / category
        inner = folder / "questions_answers_YN"
        return (inner if inner.is_dir() else folder) / file

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        images = self.image_root(root)
        return list(dict.fromkeys(self.gold_file(images, str(question.id)) for question in questions)) or [images]

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return accuracy, accuracy+ and score per sub-task, perception, cognition and their sum."""
        questions = self.questions(root)
        missing = unanswered(questions, self.match(root, rows))
        lines = self.lines(root, rows)
        metrics: list[Metric] = []
        scores: dict[str, float] = {}
        for category in (*PERCEPTION, *COGNITION):
            if category not in lines:
                continue
            accuracy, both = category_score(lines[category])
            scores[category] = accuracy + both
            count = len(lines[category])
            metrics += [
                Metric("accuracy", accuracy, "%", category, count),
                Metric("accuracy_plus", both, "%", category, count // QUESTIONS_PER_IMAGE),
                Metric("score", scores[category], "points", category, count),
            ]
        headline, groups, notes = self._sums(scores, len(rows))
        printout = [
            f"{metric.name}: {metric.value:.4f} of {200 * len(present)}"
            for metric, present in zip(groups, self._present(scores), strict=True)
        ]
        printout += [f"  {category}  score: {value:.4f}" for category, value in scores.items()]
        metrics = [*groups, *metrics]
        return Score(headline, tuple(metrics), len(rows), len(questions), tuple(printout), tuple(notes), missing)

    def lines(self, root: Path, rows: Sequence[Row]) -> dict[str, list[Line]]:
        """Return category -> lines in MME's format, in answer order.

        Raises:
            BadData: an answer's category or question is not in the official text files.
        """
        images = self.image_root(root)
        gold: dict[Path, dict[str, str]] = {}
        found: dict[str, list[Line]] = defaultdict(list)
        problems = files.Problems(f"The answers do not fit the question files in {images}")
        for number, row in enumerate(rows, start=1):
            category, file = category_and_file(str(row["question_id"]))
            if category not in PERCEPTION and category not in COGNITION:
                problems.add(f"answer {number}: {category!r} is none of MME's sub-tasks")
                continue
            path = self.gold_file(images, str(row["question_id"]))
            if path not in gold:
                gold[path] = read_gold(path)
            question = official_question(row.get("prompt", ""), gold[path])
            if question is None:
                problems.add(f"answer {number}: {path.name} has no question {row.get('prompt', '')!r}")
                continue
            answer = " ".join(row["text"].replace("\t", " ").splitlines())
            found[category].append(Line(file, question, gold[path][question], answer))
        problems.raise_if_any(BadData)
        return dict(found)

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write `eval_tool/answers/<run_name>/<category>.txt`, the files that MME's own tool reads."""
        folder = root / "eval_tool" / "answers" / run_name
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for category, lines in self.lines(root, rows).items():
            path = folder / f"{category}.txt"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            written.append(path)
        return written

    @staticmethod
    def _present(scores: dict[str, float]) -> list[list[str]]:
        return [[category for category in group if category in scores] for group in (PERCEPTION, COGNITION)]

    def _sums(self, scores: dict[str, float], samples: int) -> tuple[Metric, list[Metric], list[str]]:
        groups = [
            Metric(name, sum(scores[category] for category in present), "points")
            for name, present in zip(("perception", "cognition"), self._present(scores), strict=True)
        ]
        headline = Metric("mme", sum(scores.values()), "points", samples=samples)
        absent = [category for category in (*PERCEPTION, *COGNITION) if category not in scores]
        notes = []
        if absent:
            notes.append(
                f"Sub-tasks without answers, not in the sums: {', '.join(absent)}. "
                f"The most that can be reached is {200 * len(scores)} points."
            )
        return headline, groups, notes


def category_and_file(question_id: str) -> tuple[str, str]:
    """Return (sub-task, name of the text file) of an image path, as the official converter cuts it."""
    parts = question_id.split("/")
    return parts[0], parts[-1].split(".")[0] + ".txt"


def official_question(prompt: str, gold: dict[str, str]) -> str | None:
    """Return the official wording of a prompt, or None when the image's text file has no such question."""
    question = prompt.replace(SINGLE_WORD, "").strip()
    if YES_OR_NO not in question:
        question = f"{question} {YES_OR_NO}"
    if question not in gold:
        # Seven official questions have two spaces there.
        question = question.replace(f" {YES_OR_NO}", f"  {YES_OR_NO}")
    return question if question in gold else None


def read_gold(path: Path) -> dict[str, str]:
    """Return question -> `Yes` or `No` of one image's text file.

    Raises:
        BadData: with line numbers, when a line is not `question<TAB>Yes|No`.
    """
    gold: dict[str, str] = {}
    problems = files.Problems(f"{path} has malformed lines")
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        question, tab, answer = line.strip().partition("\t")
        if not tab or answer.lower() not in ("yes", "no"):
            problems.add(f"line {number}: not a question, a tab and Yes or No")
        gold[question] = answer
    problems.raise_if_any()
    return gold
