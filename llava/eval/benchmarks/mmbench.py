"""MMBench dev, English and Chinese: multiple choice, a question counts when all its rotations are right.

Source: LLaVA's `model_vqa_mmbench.py` and `convert_mmbench_for_submission.py`; the evaluator of MMBench (VLMEvalKit's)
without its GPT fallback. Differences: what the evaluator would hand to GPT is wrong here, and counted in a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from llava.errors import BadData
from llava.eval.benchmarks import files, mmbench_table
from llava.eval.benchmarks.base import (
    OPTION_LETTER,
    Benchmark,
    Embedded,
    Metric,
    Official,
    Question,
    Row,
    Score,
)
from llava.eval.benchmarks.matching import answers_by_id, percent
from llava.eval.benchmarks.mmbench_table import Line, is_missing, offered

ROTATION = 1_000_000
"""The k-th rotation of question i has the index i + k * ROTATION."""
CANDIDATES = "ABCDE"
"""Letters that the official code looks for, offered or not."""
LONGEST_WITH_ARTICLE = 3
"""In answers of more words a single `A` may be the article."""
AFFIXES = (
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
)
"""What may stand around a letter, in the order of the official code."""


def exact_letter(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter an answer consists of, or None."""
    return text.strip() if text.strip() in options else None


def prefetched_letter(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter the official code finds without asking GPT, or None.

    Args:
        text: the answer.
        options: letter -> option text.
    """
    words = text.split()
    for before, after in (("", ""), *AFFIXES):
        found = [letter for letter in CANDIDATES if f"{before}{letter}{after}" in words]
        bare = not before and not after
        if len(found) == 1 and not (bare and found == ["A"] and len(words) > LONGEST_WITH_ARTICLE):
            return found[0]
    lower = text.lower()
    named = [letter for letter, option in options.items() if option.lower() in lower]
    return named[0] if len(named) == 1 else None


class MmBench(Benchmark):
    """MMBench dev, English, in LLaVA's layout."""

    name = "mmbench"
    title = "MMBench"
    folder = "mmbench"
    split: ClassVar[str] = "mmbench_dev_20230712"
    question_file = "mmbench_dev_20230712.tsv"
    instruction: ClassVar[str] = OPTION_LETTER
    max_new_tokens = 1024
    official = {
        "llava": (
            Official("LLaVA-1.5-7B", 64.3, "model zoo (paper: 64.7)", "accuracy"),
            Official("LLaVA-1.5-13B", 67.7, "model zoo", "accuracy"),
        ),
        "llava_next": (Official("LLaVA-Next-7B", 67.4, "paper", "accuracy"),),
    }

    def question_path(self, root: Path) -> Path:
        """LLaVA's text puts the Chinese file under `mmbench/`, its script reads `mmbench_cn/`: both are searched."""
        here, sibling = root / self.question_file, root.parent / "mmbench" / self.question_file
        return sibling if not here.exists() and root.name == self.folder and sibling.exists() else here

    def image_root(self, root: Path) -> Path:
        return root  # images are inside the table

    def image_folders(self, root: Path) -> list[Path]:
        return []

    def label_files(self, root: Path, questions: Sequence[Question]) -> list[Path]:
        return []

    def unit(self, question: Question, position: int) -> Hashable:
        return int(str(question.id)) % ROTATION

    def table(self, root: Path, *needed: str) -> list[Line]:
        """Return the rows of the TSV; indices that stand twice are an error."""
        path = self.question_path(root)
        lines = mmbench_table.read_table(path, ("question", "A", "B", *needed))
        problems = files.Problems(f"{path} has rows that cannot be used")
        seen: set[str] = set()
        for line in lines:
            if line["index"] in seen:
                problems.add(f"index {line['index']} stands more than once")
            seen.add(line["index"])
            if not offered(line):
                problems.add(f"index {line['index']}: no option A")
            elif line.get("answer") and line["answer"] not in offered(line):
                problems.add(f"index {line['index']}: answer {line['answer']!r} is none of {', '.join(offered(line))}")
        problems.raise_if_any()
        return lines

    def read_questions(self, root: Path, family: str) -> list[Question]:
        """Return one question for every row of the TSV; rotations are rows of their own."""
        path = self.question_path(root)
        lines = self.table(root, "image")
        by_index = {line["index"]: line for line in lines}
        questions = []
        for line in lines:
            options, text = offered(line), self.text(line)
            image = Embedded(f"{path}, index {line['index']}", mmbench_table.image_of(line, by_index, path))
            extra = {"round_id": 0, "options": list(options.values()), "option_char": list(options)}
            prompt = f"{text}\n{self.instruction}"
            category = line.get("category") or "default"
            questions.append(Question(int(line["index"]), image, text, prompt, category, line["index"], extra=extra))
        return questions

    @staticmethod
    def text(line: Line) -> str:
        """Return hint, question and lettered options of a row, as LLaVA stores them."""
        hint = [] if is_missing(line.get("hint")) else [line["hint"]]
        return "\n".join([*hint, line["question"], *(f"{k}. {v}" for k, v in offered(line).items())])

    def score(self, root: Path, rows: Sequence[Row]) -> Score:
        """Return the circular accuracy by the official reading of answers (headline) and by the exact one."""
        lines = self.table(root)
        answers = answers_by_id(rows, {line["index"] for line in lines}, f"{self.title} ({self.question_path(root)})")
        missing = tuple(line["index"] for line in lines if line["index"] not in answers)
        if any(is_missing(line.get("answer")) for line in lines):
            note = f"{self.question_path(root).name} has no answers: upload the file that --export writes."
            headline = Metric("accuracy", None, "%", samples=len(answers))
            return Score(headline, (), len(answers), len(lines), notes=(note,), missing=missing)
        absent = {int(index) % ROTATION for index in missing}
        groups: dict[int, list[Line]] = defaultdict(list)
        for line in lines:
            if int(line["index"]) % ROTATION not in absent:
                groups[int(line["index"]) % ROTATION].append(line)
        scored = [line for group in groups.values() for line in group]
        letters = {
            name: {line["index"]: read(answers[line["index"]]["text"], offered(line)) for line in scored}
            for name, read in (("accuracy", prefetched_letter), ("accuracy_exact", exact_letter))
        }
        metrics = [metric for name, found in letters.items() for metric in circular(name, groups, found)]
        overall = [metric for metric in metrics if not metric.group]
        unrotated = [line for line in scored if int(line["index"]) < ROTATION]
        for name, chosen in (("row_accuracy", scored), ("base_row_accuracy", unrotated)):
            right = [letters["accuracy"][line["index"]] == line["answer"] for line in chosen]
            overall.append(Metric(name, percent(right), "%", samples=len(right)))
        unresolved = sum(letter is None for letter in letters["accuracy"].values())
        notes = []
        if unresolved:
            notes.append(f"{unresolved} answers name no option: they are wrong here, the server would ask GPT.")
        if absent:
            notes.append(f"{len(absent)} groups with missing rows are not part of the accuracy.")
        parts = [metric for metric in metrics if metric.group]
        printout = [f"{m.group or m.name}: {m.value:.3f}" for m in (*overall, *parts) if m.value is not None]
        return Score(overall[0], (*overall, *parts), len(answers), len(lines), tuple(printout), tuple(notes), missing)

    def upload_path(self, root: Path, run_name: str) -> Path:
        """Return where the upload goes; that of the Chinese set lies under `mmbench/` too, as in LLaVA's script."""
        folder = root.parent / "mmbench" if root.name == self.folder else root
        return folder / "answers_upload" / self.split / f"{run_name}.xlsx"

    def export(self, root: Path, rows: Sequence[Row], run_name: str) -> list[Path]:
        """Write and check the Excel file for the official server.

        Raises:
            BadData: a row has no answer.
        """
        lines = self.table(root)
        answers = answers_by_id(rows, {line["index"] for line in lines}, f"{self.title} ({self.question_path(root)})")
        absent = [line["index"] for line in lines if line["index"] not in answers]
        if absent:
            raise BadData(f"The upload needs an answer to every row; {len(absent)} of {len(lines)} have none.")
        path = self.upload_path(root, run_name)
        mmbench_table.write_upload(path, lines, {index: row["text"] for index, row in answers.items()})
        objections = self.validate_upload(root, path)
        if objections:
            raise BadData("\n".join([f"{path} would be refused:", *files.shortened(objections)]))
        return [path]

    def validate_upload(self, root: Path, path: Path) -> list[str]:
        """Return how the file differs from one row per TSV row, in order, with the official columns."""
        lines = self.table(root)
        columns, found = mmbench_table.read_upload(path)
        wanted = mmbench_table.upload_columns(lines[0])
        if columns != wanted:
            return [f"columns are {', '.join(columns)} instead of {', '.join(wanted)}"]
        if len(found) != len(lines):
            return [f"{len(found)} rows instead of {len(lines)}"]
        fixed = [name for name in wanted if name not in ("index", "prediction")]
        objections = []
        for number, (line, row) in enumerate(zip(lines, found, strict=True), start=2):
            if str(row["index"]) != line["index"]:
                objections.append(f"row {number}: index {row['index']!r} instead of {line['index']}")
            changed = [name for name in fixed if _cell(row[name]) != mmbench_table.cell_text(line[name])]
            if changed:
                objections.append(f"row {number}: {', '.join(changed)} differ from the table")
        return objections

    def foreign_answers(self, path: Path) -> list[Row] | None:
        """Return the predictions of an upload file (.xlsx)."""
        if path.suffix.lower() != ".xlsx":
            return None
        columns, found = mmbench_table.read_upload(path)
        absent = [name for name in ("index", "prediction") if name not in columns]
        if absent:
            raise BadData(f"{path} lacks the columns {', '.join(absent)}; it has: {', '.join(columns) or 'none'}.")
        return [{"question_id": row["index"], "text": _cell(row["prediction"])} for row in found]


class MmBenchCn(MmBench):
    """MMBench dev, Chinese."""

    name = "mmbench_cn"
    title = "MMBench-CN"
    folder = "mmbench_cn"
    split = "mmbench_dev_cn_20231003"
    question_file = "mmbench_dev_cn_20231003.tsv"
    instruction = "请直接回答选项字母。"
    official = {
        "llava": (Official("LLaVA-1.5-7B", 58.3, "model zoo (paper: 58.1)", "accuracy"),),
        "llava_next": (Official("LLaVA-Next-7B", 60.6, "paper", "accuracy"),),
    }


def circular(name: str, groups: Mapping[int, Sequence[Line]], letters: Mapping[str, str | None]) -> list[Metric]:
    """Return the share of groups answered right in every row: over all, per category and per l2-category."""
    right = {key: all(letters[line["index"]] == line["answer"] for line in group) for key, group in groups.items()}
    parts: dict[str, list[bool]] = {"": list(right.values())}
    for column in ("l2-category", "category"):
        for key, group in groups.items():
            if not is_missing(group[0].get(column)):
                parts.setdefault(f"{column} {group[0][column]}", []).append(right[key])
    return [Metric(name, percent(values), "%", group, len(values)) for group, values in parts.items()]


def _cell(value: object) -> str:
    return "" if value is None else str(value)
