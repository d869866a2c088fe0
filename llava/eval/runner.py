"""Run one benchmark with one method: answer what is not answered yet, keep every row, score, write one results JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from llava.errors import BadInput, LlavaError, first_line
from llava.eval import identity, results
from llava.eval.answers import AnswersFile, set_aside
from llava.eval.asking import Asker, LoadedModel
from llava.eval.batches import batches
from llava.eval.benchmarks.base import Question
from llava.eval.data import DataSet
from llava.eval.part import WorkerAnswers
from llava.eval.prefetch import opened_ahead
from llava.eval.processes import Processes
from llava.eval.progress import Progress

__all__ = ["Interrupted", "LoadedModel", "MethodRun", "Plan", "Settings", "plan", "run_benchmark"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is kept."""


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
        batch_size: questions answered at once; "auto": as many as answer most in a second and fit in the memory.
        max_new_tokens: longest answer; None: what the benchmark prescribes.
        fast: whether to compile what can be compiled; the answers stay the same.
        reuse: megabytes for what questions about the same image share; 0: every question is computed in full.
        seed: for everything random.
        limit: questions asked for with `--limit`, as a record.
        restart: set earlier answers of the same name aside.
        say: called with progress sentences.
        progress: show a bar on standard error.
        chunks: (number of chunks, index of the one to answer), as LLaVA's scripts split a question file.
        team: the processes that share the run.
    """

    folder: Path = Path("results")
    batch_size: int | str = 8
    max_new_tokens: int | None = None
    fast: bool = False
    reuse: int = 0
    seed: int = 0
    limit: int | None = None
    restart: bool = False
    answers_file: Path | None = None
    results_file: Path | None = None
    say: Callable[[str], None] = field(default=lambda sentence: None)
    progress: bool = True
    chunks: tuple[int, int] | None = None
    team: Processes = field(default_factory=Processes)


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first question: identity and files of a run."""

    configuration: dict[str, Any]
    run_id: str
    answers: Path
    results: Path
    name: str
    questions: Sequence[Question]
    chunk_advice: str = ""


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
    if not settings.chunks:
        return Plan(configuration, run_id, answers, report, name, questions)
    chunks, index = settings.chunks
    answers = settings.answers_file or report.with_suffix("") / f"{chunks}_{index}.jsonl"
    configuration["chunk"] = f"{index} of {chunks}"
    advice = (
        f"Chunk {index} of {chunks} is answered: {answers}. When all are: python -m llava.eval score "
        f"{data.benchmark.name} --answers-file {answers.parent}"
    )
    part = chunk_of(questions, chunks, index)
    return Plan(configuration, identity.run_id(configuration), answers, answers, name, part, advice)


def pruning_options(settings: Settings, questions: Sequence[Question]) -> dict[str, Any]:
    """Return what a method is told besides the model: only what was asked for."""
    options: dict[str, Any] = {}
    if settings.fast:
        from llava.model.fast import Fast

        options["fast"] = Fast(say=settings.say)
    if settings.reuse and len({question.image for question in questions}) < len(questions):
        from llava.model.reuse import Reuse

        options["reuse"] = Reuse(settings.reuse * 10**6)
    return options


def chunk_of(questions: Sequence[Question], chunks: int, index: int) -> Sequence[Question]:
    """Return the questions of one of LLaVA's chunks: `ceil(n / chunks)` each; the last may have fewer or none."""
    size = -(-len(questions) // chunks)
    return questions[index * size : (index + 1) * size]


def run_benchmark(
    data: DataSet, questions: Sequence[Question], loaded: LoadedModel, run: MethodRun, settings: Settings
) -> dict[str, Any] | None:
    """Answer, score and record; return the content of the results JSON, which is also written.

    Finished questions of the same configuration are not asked again; questions that failed before are tried again.
    Of several processes the first returns and writes the results, and the others return None. A chunk of the questions
    gets an answers file only.

    Raises:
        BadInput: the answers file belongs to another configuration or is in use.
        UnsupportedModel: the method cannot work with this model.
        Interrupted: Ctrl-C; what was answered is kept.
    """
    planned = plan(data, questions, loaded, run, settings)
    team, questions = settings.team, planned.questions
    pruning = run.method(
        loaded.model, **pruning_options(settings, questions)
    )  # refuses here, before any file is touched, what cannot work
    started = timestamp()
    if settings.restart:
        for old in set_aside(planned.answers) if team.is_first else ():
            settings.say(f"Set aside: {old}")
        team.gather(None)  # nobody opens a file that is being moved
    if not team.is_first:
        _work(loaded, pruning, settings, data, planned)
        return None
    with AnswersFile(planned.answers, planned.run_id, planned.configuration, questions) as answers:
        reused = len(answers.answered)
        if team.gather(answers.finished and not answers.failed)[0]:
            settings.say(f"All {reused} answers of this run are there already ({answers.path}); they are used.")
        else:
            if reused:
                settings.say(f"Continuing {answers.path}: {reused} of {len(questions)} questions are answered.")
            torch.manual_seed(settings.seed)
            with _said_when_interrupted(answers), pruning:
                _answer_rest(answers, loaded, pruning, settings, data, planned)
                for run_id, rows, measures in team.gather((planned.run_id, {}, [])):
                    if run_id != planned.run_id:
                        raise BadInput("The processes differ (model, versions, GPU or data): start them all alike.")
                    answers.absorb(rows, measures)
            team.gather(None)  # the other processes may delete their parts now
        rows, measures = answers.rows, answers.measures
    store = getattr(pruning, "reuse", None)
    for note in store.notes if store is not None else ():
        settings.say(note)
    if not questions:
        planned.answers.touch()  # so that no chunk is missing
    if planned.chunk_advice:
        settings.say(planned.chunk_advice)
    score = data.benchmark.score(data.root, rows)
    exported = [] if settings.chunks else export(data, rows, planned.name, settings.say)
    record = results.record(
        data=data,
        score=score,
        rows=rows,
        measures=measures,
        plan=planned,
        loaded=loaded,
        run=run,
        settings=settings,
        store=None if store is None else store.statistics(),
        reused=reused,
        exported=exported,
        started=started,
        finished=timestamp(),
    )
    if not settings.chunks:
        results.write(planned.results, record)
    return record


def _work(loaded: LoadedModel, pruning: Any, settings: Settings, data: DataSet, planned: Plan) -> None:
    """Do the part of a process besides the first: answer a share of the batches and hand the rows over."""
    team = settings.team
    with WorkerAnswers(planned.answers, planned.run_id, team.number) as answers:
        if team.gather(False)[0]:
            return
        torch.manual_seed(settings.seed)
        with pruning:
            _answer_rest(answers, loaded, pruning, settings, data, planned)
        team.gather((planned.run_id, answers.rows, answers.measures))
        team.gather(None)
        answers.remove()


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
    answers: AnswersFile | WorkerAnswers,
    loaded: LoadedModel,
    pruning: Any,
    settings: Settings,
    data: DataSet,
    planned: Plan,
) -> None:
    """Ask what no process has answered yet: this process's share of the batches, the first also what failed before."""
    team, questions = settings.team, planned.questions
    known: set[int] = set().union(*team.gather(answers.answered))
    ask = Asker(loaded, pruning, planned.configuration["max_new_tokens"], settings.batch_size, settings.say)
    largest = ask.batch.largest
    failed = answers.failed if isinstance(answers, AnswersFile) else []
    # A batch that was cut short is asked again as a whole, so that the missing answers come from the same batch as in
    # an uninterrupted run.
    open_batches = [batch for batch in batches(questions, largest, loaded.processor) if not known.issuperset(batch)]
    mine = open_batches[team.number :: team.count]
    total = len(questions) if team.count == 1 else sum(map(len, mine)) + len(failed)
    shown = settings.progress and team.is_first
    name = planned.name.rpartition("-")[0]
    with Progress(data, name, total, len(known) - len(failed) if team.count == 1 else 0, shown) as progress:
        again = [failed[first : first + largest] for first in range(0, len(failed), largest)]
        for _, opened in opened_ahead(loaded.processor, questions, again):
            for rows, _ in ask(questions, opened, opened):
                if isinstance(answers, AnswersFile):  # only the first process has failed ones
                    answers.replace(rows)
                progress.update(len(rows), lambda: answers.rows_in_order)
        for waited, opened in opened_ahead(loaded.processor, questions, mine):
            for rows, measure in ask(questions, opened, set(opened) - known, waited):
                answers.record(rows, measure)
                progress.update(len(rows.keys() - known), lambda: answers.rows_in_order)


@contextlib.contextmanager
def _said_when_interrupted(answers: AnswersFile) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted. {len(answers.answered)} of {len(answers.questions)} answers are kept in {answers.path}; "
            f"the same command continues there."
        ) from error
