"""The commands that need no model: score an answers file, check an upload file, let a judge read video answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from llava.commandline import say, warn
from llava.errors import BadData, BadInput, ConfigurationError
from llava.eval import benchmarks, data, results, screen
from llava.eval.answers import read_answers
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Row
from llava.eval.data import DataSet

CHUNK = re.compile(r"(\d+)_(\d+)\.jsonl?")


@dataclass(frozen=True)
class ScoreConfig:
    """Score an existing answers file with the official rules; no model is loaded."""

    benchmark: tyro.conf.Positional[str]
    """Name of the benchmark, e.g. pope; `python -m llava.data` lists all."""
    answers_file: str
    """Answers in LLaVA's format, one JSON object a line, or a folder with its chunks (4_0.jsonl, 4_1.jsonl, ...). The
    official tools' own files are read too where they hold the predictions: MMBench's .xlsx, OCRBench's results,
    Video-LLaVA's merge.jsonl."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    partial: bool = False
    """Accept a file that does not answer every question or has damaged lines, and score what is there."""
    replies: str | None = None
    """Video sets: folder (or results.json) with a judge's replies; the official formulas are computed from them."""
    output: str | None = None
    """Also write the score to this JSON file."""
    export: bool = False
    """Also write the files that the benchmark's own tool or server takes."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        return benchmark_problems((self.benchmark,)) + data_problems(self.data)


@dataclass(frozen=True)
class ValidateConfig:
    """Check a file for an evaluation server: VQAv2, VizWiz (JSON) or MMBench (Excel)."""

    benchmark: tyro.conf.Positional[str]
    """Name of the benchmark."""
    upload_file: tyro.conf.Positional[str]
    """The file to check."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        return benchmark_problems((self.benchmark,)) + data_problems(self.data)


@dataclass(frozen=True)
class JudgeConfig:
    """Let a language model behind an OpenAI-compatible endpoint judge video answers, then print accuracy and score."""

    benchmark: tyro.conf.Positional[str]
    """tgif_qa, msvd_qa or msrvtt_qa."""
    answers_file: str
    """Answers in LLaVA's or Video-LLaVA's format."""
    endpoint: str
    """Base URL of the endpoint, e.g. https://api.openai.com/v1 or http://localhost:8000/v1."""
    judge_model: str = "gpt-3.5-turbo"
    """Model that judges; the literature's numbers are from gpt-3.5-turbo."""
    api_key_file: str | None = None
    """File with the key of the endpoint; not needed by most local servers."""
    replies: str | None = None
    """Folder of the replies, one file a question; default: <answers file>.replies."""
    workers: int = 4
    """Requests at a time."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    partial: bool = False
    """Accept a file that does not answer every question."""
    output: str | None = None
    """Also write the score to this JSON file."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        found = benchmark_problems((self.benchmark,)) + data_problems(self.data)
        return found + ([f"--workers {self.workers} is too small: give at least 1."] if self.workers < 1 else [])


def benchmark_problems(names: Sequence[str]) -> list[str]:
    """Return a sentence for every unknown benchmark, or one when none is named."""
    found = []
    for name in names:
        try:
            benchmarks.get(name)
        except ConfigurationError as error:
            found += error.problems
    if not names:
        found.append(f"Name at least one benchmark: {', '.join(benchmarks.names())}.")
    return found


def data_problems(choice: str | None) -> list[str]:
    """Return a sentence when `--data` names nothing that is there."""
    if choice in (None, "full", "mini") or Path(str(choice)).is_dir():
        return []
    return [f"--data {choice!r} is neither full nor mini nor a folder."]


def read_any_answers(benchmark: Benchmark, path: Path, skipped: list[str] | None = None) -> list[Row]:
    """Return the rows of an answers file, LLaVA's or the benchmark's own, or of a folder of LLaVA's chunks."""
    files.require([path])
    if path.is_dir():
        written = [
            chunk for chunk in chunk_files(path) if chunk.stat().st_size
        ]  # the last chunks may have no questions
        return [row for chunk in written for row in read_any_answers(benchmark, chunk, skipped)]
    rows = benchmark.foreign_answers(path)
    if rows is None:
        return read_answers(path, skipped)
    if not rows:
        raise BadData(f"{path} has no answers.")
    return rows


def chunk_files(folder: Path) -> list[Path]:
    """Return the files `<chunks>_<index>.jsonl` of a folder in order; several processes of LLaVA's scripts write them.

    Raises:
        BadData: there are none, or not all of one set.
    """
    found = {tuple(map(int, m.groups())): p for p in folder.iterdir() if (m := CHUNK.fullmatch(p.name))}
    totals = {total for total, _ in found}
    if len(totals) != 1:
        raise BadData(f"{folder} holds chunks of {len(totals)} runs (<chunks>_<index>.jsonl): name one answers file.")
    total = totals.pop()
    absent = [f"{total}_{index}.jsonl" for index in range(total) if (total, index) not in found]
    if absent:
        raise BadData(f"{folder} lacks {', '.join(absent)}: that process has not written its answers.")
    return [found[total, index] for index in range(total)]


def score_command(config: ScoreConfig) -> None:
    """Score an answers file and print what the official scorer prints."""
    benchmark, dataset, rows = _prepared(config.benchmark, config.data, config.answers_file, config.partial)
    if config.replies is None:
        score = benchmark.score(dataset.root, rows)
    else:
        from llava.eval import judge

        score = judge.score(_video(benchmark), dataset.root, rows, Path(config.replies))
    _tell(dataset, score, rows, config)
    if config.export:
        for path in benchmark.export(dataset.root, rows, Path(config.answers_file).stem):
            say(f"Written: {path}")


def validate_command(config: ValidateConfig) -> None:
    """Say that an upload file is in order, or list what a server would object to."""
    benchmark = benchmarks.get(config.benchmark)
    dataset = data.locate(benchmark, config.data)
    files.require([Path(config.upload_file)], "Give the path of the file to check.")
    files.require(benchmark.score_files(dataset.root), data.advice([dataset]))
    objections = benchmark.validate_upload(dataset.root, Path(config.upload_file))
    if objections:
        raise BadData("\n".join([f"{config.upload_file} would be refused:", *files.shortened(objections)]))
    say(f"{config.upload_file} is in order for {benchmark.title} ({dataset.kind} data).")


def judge_command(config: JudgeConfig) -> None:
    """Ask the judge about every answer without a reply, then score."""
    from llava.eval import judge

    benchmark, dataset, rows = _prepared(config.benchmark, config.data, config.answers_file, config.partial)
    key = files.read_text(Path(config.api_key_file)).strip() if config.api_key_file else None
    folder = Path(config.replies or f"{config.answers_file}.replies")
    asked = judge.Judge(config.endpoint, config.judge_model, key)
    judge.judge_answers(_video(benchmark), dataset.root, rows, folder, asked, config.workers, warn)
    score = judge.score(_video(benchmark), dataset.root, rows, folder)
    say(f"Judge: {config.judge_model}; replies: {folder}")
    _tell(dataset, score, rows, config)


def _prepared(name: str, choice: str | None, answers: str, partial: bool) -> tuple[Benchmark, DataSet, list[Row]]:
    benchmark = benchmarks.get(name)
    dataset = data.locate(benchmark, choice)
    files.require([Path(answers)], "Give the path of a file with answers.")
    files.require(benchmark.score_files(dataset.root), data.advice([dataset]))
    skipped: list[str] | None = [] if partial else None
    rows = read_any_answers(benchmark, Path(answers), skipped)
    if skipped:
        say("\n".join([f"{len(skipped)} damaged lines are left out:", *files.shortened(skipped)]))
    return benchmark, dataset, rows


def _video(benchmark: Benchmark) -> Any:
    from llava.eval.benchmarks.video_qa import VideoQa

    if not isinstance(benchmark, VideoQa):
        names = [name for name in benchmarks.names() if isinstance(benchmarks.get(name), VideoQa)]
        raise BadInput(f"{benchmark.title} needs no judge: it has a scorer of its own. Judged are: {', '.join(names)}.")
    return benchmark


def _tell(dataset: DataSet, score: Any, rows: Sequence[Row], config: ScoreConfig | JudgeConfig) -> None:
    title = dataset.benchmark.title
    if score.samples < score.expected and not config.partial:
        lines = [f"{config.answers_file} answers {score.samples} of the {score.expected} questions of {title} "]
        lines[0] += f"({dataset.kind}). Add --partial to score what is there."
        if score.missing:
            lines += ["Without an answer:", *files.shortened([f"question {key}" for key in score.missing])]
        raise BadData("\n".join(lines))
    for line in (*score.printout, *score.notes):
        say(line)
    empty = sum(not row["text"].strip() for row in rows)
    if empty:
        say(f"{empty} of {len(rows)} answers are empty.")
    value = f"{screen.number(score.headline.value)} {score.headline.unit}".rstrip()
    say(f"{title} ({dataset.kind}, {score.samples} answers): {score.headline.name} {value}")
    if config.output:
        results.write(Path(config.output), results.score_record(dataset, score, None))
