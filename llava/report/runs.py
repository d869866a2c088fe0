"""Computing the results that are missing, one after the other, with the model loaded once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llava.errors import ConfigurationError, UnsupportedModel
from llava.eval import benchmarks, data, identity
from llava.eval.benchmarks.base import Question
from llava.eval.data import DataSet
from llava.report.cells import Cell
from llava.report.store import Store

Say = Callable[[str], None]


@dataclass(frozen=True)
class Missing:
    """What is left to compute: cells by benchmark, and the questions each of them asks."""

    sets: dict[str, tuple[DataSet, list[Question]]]
    cells: list[Cell]

    @property
    def questions(self) -> int:
        """Questions to be asked in all."""
        return sum(len(self.sets[cell.benchmark][1]) for cell in self.cells)


def plan(store: Store, cells: Iterable[Cell]) -> Missing:
    """Return which of the cells have no result for the questions that `store.source` means.

    From here on the store takes only results of exactly these questions.

    Raises:
        MissingData: data of some benchmarks is not there; every missing path is named.
    """
    source = store.source
    wanted = [cell for cell in dict.fromkeys(cells) if source.only is None or cell.benchmark in source.only]
    names = list(dict.fromkeys(cell.benchmark for cell in wanted))
    sets = [data.locate(benchmarks.get(name), source.data) for name in names]
    loaded = data.load_questions(sets, store.target.family, source.limit)
    by_name = dict(zip(names, zip(sets, loaded, strict=True), strict=True))
    store.questions.update({name: identity.questions_digest(asked) for name, (_, asked) in by_name.items()})
    missing = store.missing(wanted)
    return Missing(by_name, [cell for name in names for cell in missing if cell.benchmark == name])


def told(store: Store, missing: Missing) -> list[str]:
    """Return what is missing in words: a line for each benchmark, the sum, and how long it may take."""
    lines = []
    for name, (dataset, asked) in missing.sets.items():
        labels = [cell.label for cell in missing.cells if cell.benchmark == name]
        if labels:
            lines.append(f"{name}: {len(labels)} x {len(asked)} questions ({dataset.kind} data): {', '.join(labels)}")
    lines.append(f"Missing: {len(missing.cells)} results, {missing.questions} questions.")
    seconds = [r["timings"]["total"]["mean_s"] for r in store.all() if r.get("timings")]
    if seconds and missing.cells:
        minutes = missing.questions * statistics.fmean(seconds) / 60
        lines.append(f"At the mean speed of the {len(seconds)} results that are there: {minutes:.0f} minutes.")
    return lines


def complete(store: Store, cells: Iterable[Cell], say: Say, progress: bool = False) -> list[str]:
    """Compute what is missing, write it to the first folder of the source, and take it into the store.

    Args:
        say: called with sentences about the progress.
        progress: show a bar for each run.

    Returns:
        sentences about the cells that the model or the method cannot do.
    """
    from llava.eval.runner import MethodRun, Settings, run_benchmark

    source = store.source
    if _has_results(store):
        store.loaded()  # so that results of other weights are not taken for this model's
    missing = plan(store, cells)
    if not missing.cells:
        say("Nothing is missing.")
        return []
    say(f"{len(missing.cells)} results are missing, {missing.questions} questions.")
    loaded = store.loaded()
    settings = Settings(
        folder=source.folders[0],
        batch_size=source.batch_size,
        seed=source.seed,
        limit=source.limit,
        say=say,
        fast=source.fast,
        reuse=source.reuse,
        progress=progress,
    )
    left_out: dict[str, str] = {}
    started, asked = time.monotonic(), 0
    for number, cell in enumerate(missing.cells, start=1):
        dataset, questions = missing.sets[cell.benchmark]
        spent = time.monotonic() - started
        rest = f" ({(missing.questions - asked) / asked * spent / 60:.0f} minutes left)" if asked else ""
        say(f"[{number} of {len(missing.cells)}] {cell.benchmark} {cell.label}{rest}")
        asked += len(questions)
        notes = tuple(cell.options.notes(store.target.rule))
        run = MethodRun(cell.options.build(store.target.rule, seed=source.seed), cell.label, None, notes)
        try:
            record = run_benchmark(dataset, questions, loaded, run, settings)
        except (UnsupportedModel, ConfigurationError) as error:  # the others still have their turn
            left_out.setdefault(cell.label, str(error))
            continue
        if record is not None:
            store.add(record)
    return [f"{label} was left out: {reason}" for label, reason in left_out.items()]


def _has_results(store: Store) -> bool:
    return any(record["model"]["name"] == store.target.name for record in store.everything)


def command_for(cells: Sequence[Cell], words: str, store: Store) -> str:
    """Return the sentence that says what to type when results are missing.

    Args:
        cells: those without a result.
        words: command that needs them, e.g. "table 1".
    """
    flags = f" {store.source.flags}" if store.source.flags else ""
    sentence = f"{len(cells)} results are missing: python -m llava.report {words}{flags} --run"
    first = f"; one of them alone: python -m llava.eval {cells[0].words} --output {store.source.folders[0]}"
    return sentence + first
