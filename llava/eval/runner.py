"""Run one benchmark with one method: answer what is not answered yet, keep every row, score, write one results JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llava.errors import LlavaError, first_line
from llava.eval import accounting, identity, results
from llava.eval.answers import AnswersFile, answer_row, set_aside
from llava.eval.benchmarks.base import Question
from llava.eval.data import DataSet
from llava.eval.generation import BatchAnswers, answer_batch


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is kept."""


@dataclass(frozen=True)
class LoadedModel:
    """A model, its processor, the path it was asked by, and the digest of its weights."""

    model: Any
    processor: Any
    path: str
    digest: str

    @property
    def name(self) -> str:
        """Short name for files: the last part of the path."""
        return Path(self.path).resolve().name


@dataclass(frozen=True)
class MethodRun:
    """A method to be run: the object, its short label, the file it came from, sentences about its budget."""

    method: Any
    label: str
    file: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to run. `answers_file` and `results_file` replace the names that are made from the run's parts.

    Args:
        folder: where results and answers are written.
        batch_size: questions answered at once.
        max_new_tokens: longest answer; None: what the benchmark prescribes.
        seed: for everything random.
        limit: questions asked for with `--limit`, as a record.
        restart: set earlier answers of the same name aside.
        say: called with progress sentences.
        progress: show a bar on standard error.
    """

    folder: Path = Path("results")
    batch_size: int = 8
    max_new_tokens: int | None = None
    seed: int = 0
    limit: int | None = None
    restart: bool = False
    answers_file: Path | None = None
    results_file: Path | None = None
    say: Callable[[str], None] = field(default=lambda sentence: None)
    progress: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first question: identity and files of a run."""

    configuration: dict[str, Any]
    run_id: str
    answers: Path
    results: Path
    name: str


def plan(data: DataSet, questions: Sequence[Question], loaded: LoadedModel, run: MethodRun, settings: Settings) -> Plan:
    """Return the identity and the files of a run; nothing is read or written."""
    configuration = identity.configuration_of(
        benchmark=data.benchmark.name,
        questions=questions,
        model=loaded.model,
        model_name=loaded.name,
        weights=loaded.digest,
        method=run.method,
        method_file=run.file,
        max_new_tokens=settings.max_new_tokens or data.benchmark.max_new_tokens,
        seed=settings.seed,
    )
    pixels = loaded.processor.settings()
    if pixels:
        configuration["pixels"] = pixels
    run_id = identity.run_id(configuration)
    name = f"{loaded.name}-{run.label}-{run_id[:8]}"
    stem = f"{data.benchmark.name}-{data.kind}-{name}"
    report = settings.results_file or settings.folder / f"{stem}.json"
    answers = settings.answers_file or report.with_name(f"{report.stem}.jsonl")
    return Plan(configuration, run_id, answers, report, name)


def run_benchmark(
    data: DataSet, questions: Sequence[Question], loaded: LoadedModel, run: MethodRun, settings: Settings
) -> dict[str, Any]:
    """Answer, score and record; return the content of the results JSON, which is also written.

    Finished questions of the same configuration are not asked again; questions that failed before are tried again.

    Raises:
        BadInput: the answers file belongs to another configuration or is in use.
        UnsupportedModel: the method cannot work with this model.
        Interrupted: Ctrl-C; what was answered is kept.
    """
    planned = plan(data, questions, loaded, run, settings)
    pruning = run.method(loaded.model)  # refuses here, before any file is touched, what cannot work
    started = timestamp()
    if settings.restart:
        for old in set_aside(planned.answers):
            settings.say(f"Set aside: {old}")
    with AnswersFile(planned.answers, planned.run_id, planned.configuration, questions) as answers:
        reused = len(answers.rows)
        if answers.finished and not answers.failed:
            settings.say(f"All {reused} answers of this run are there already ({answers.path}); they are used.")
        else:
            if reused:
                settings.say(f"Continuing {answers.path}: {reused} of {len(questions)} questions are answered.")
            torch.manual_seed(settings.seed)
            with _said_when_interrupted(answers), pruning:
                _answer_rest(answers, loaded, pruning, settings, data, planned)
        rows, measures = answers.rows, answers.measures
    score = data.benchmark.score(data.root, rows)
    exported = export(data, rows, planned.name, settings.say)
    record = results.record(
        data=data,
        score=score,
        rows=rows,
        measures=measures,
        plan=planned,
        loaded=loaded,
        run=run,
        settings=settings,
        reused=reused,
        exported=exported,
        started=started,
        finished=timestamp(),
    )
    results.write(planned.results, record)
    return record


def export(data: DataSet, rows: Sequence[dict[str, Any]], name: str, say: Callable[[str], None]) -> list[str]:
    """Write the files other tools want; where they cannot be written (or not yet), only these files are lost."""
    try:
        return [str(path) for path in data.benchmark.export(data.root, rows, name)]
    except (OSError, LlavaError) as error:
        say(f"The files for the official tool or server are not written: {first_line(error)}")
        return []


def timestamp() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _answer_rest(
    answers: AnswersFile, loaded: LoadedModel, pruning: Any, settings: Settings, data: DataSet, planned: Plan
) -> None:
    longest = planned.configuration["max_new_tokens"]
    ask = _Asker(loaded, pruning, longest, settings.batch_size)
    with tqdm(
        total=len(answers.questions),
        initial=len(answers.rows) - len(answers.failed),
        desc=f"{data.benchmark.title} {data.kind}, {planned.name.rpartition('-')[0]}",
        unit="q",
        disable=not settings.progress,
    ) as bar:
        for places in _chunks(answers.failed, settings.batch_size):
            rows, _ = ask([answers.questions[place] for place in places])
            answers.replace(dict(zip(places, rows, strict=True)))
            bar.update(len(places))
        # A batch that was cut short is asked again as a whole, so that the missing answers come from the same batch as
        # in an uninterrupted run.
        size, done = settings.batch_size, len(answers.rows)
        first = done if answers.finished else done - done % size
        for places in _chunks(range(first, len(answers.questions)), size):
            rows, measure = ask([answers.questions[place] for place in places])
            new = rows[max(0, done - places[0]) :]
            answers.append(new, measure)
            bar.update(len(new))


class _Asker:
    """Asks batches and remembers whether the machine is warm."""

    def __init__(self, loaded: LoadedModel, pruning: Any, max_new_tokens: int, batch_size: int):
        self.loaded, self.pruning = loaded, pruning
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.cold = True

    def __call__(self, questions: Sequence[Question]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        import shortuuid

        given = answer_batch(self.loaded.model, self.loaded.processor, questions, self.max_new_tokens)
        rows = [
            answer_row(question, text, self.loaded.name, shortuuid.uuid(), error)
            for question, text, error in zip(questions, given.texts, given.errors, strict=True)
        ]
        return rows, self._measure(given)

    def _measure(self, given: BatchAnswers) -> dict[str, Any]:
        asked = sum(error is None for error in given.errors)
        warm_up, self.cold = self.cold, self.cold and not asked
        return {
            "asked": asked,
            "batch_size": self.batch_size,
            "warm_up": warm_up,
            "seconds": given.seconds,
            "new_tokens": given.new_tokens,
            "accounting": accounting.batch_means(self.pruning.last) if asked else None,
        }


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (places[first : first + size] for first in range(0, len(places), size))


@contextlib.contextmanager
def _said_when_interrupted(answers: AnswersFile) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted. {len(answers.rows)} of {len(answers.questions)} answers are kept in {answers.path}; "
            f"the same command continues there."
        ) from error
