"""`python -m llava.bench parts`: where the time of one question goes, from the image file to the last token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import StoppingCriteriaList

from llava.bench import results
from llava.bench.options import NONE, TimedComparison
from llava.bench.prefill import counts, times, title
from llava.bench.subject import Subject, build, environment
from llava.bench.timing import PartClock, TokenClock, Turns, ratios, spread
from llava.bench.trials import OK, Measured, Trial, in_turns, try_each
from llava.commandline import too_small, warn
from llava.eval.generation import now
from llava.eval.screen import DASH, table
from llava.model.pruning import Pruning
from llava.reduction.base import Reduction

PARTS = ("preprocess", "vision", "language", "other", "decode")


@dataclass(frozen=True)
class Parts(TimedComparison):
    """Time the parts of a question: preprocessing, vision tower, prefill of the language model, decoding; selection.

    A checkpoint is asked another question of the benchmark in every round.
    """

    new_tokens: int | None = None
    """Tokens to generate; default: as long as the benchmark allows and the model wants, 16 for random weights."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        return too_small(self, new_tokens=1) + super().problems()

    @property
    def n_questions(self) -> int:
        """Questions of all rounds."""
        return (self.times.repeats + self.times.warmup) * self.prompt.batch


RANDOM_ANSWER = 16


def run(options: Parts) -> None:
    """Measure, show, write."""
    methods = options.choice.build()
    subject = build(options.model, options.prompt, options.n_questions)
    where = environment(subject.model)
    measured = measure(
        subject,
        methods,
        options.prompt.batch,
        options.new_tokens,
        options.times.repeats,
        options.times.warmup,
        warn,
    )
    heading = f"{title(subject, where)}; ms of one batch, medians; selection is part of language, other or vision"
    results.publish("parts", options, where, subject.facts, measured, heading, lines(measured.rows))


def measure(
    subject: Subject,
    methods: dict[str, Reduction],
    batch: int,
    new_tokens: int | None,
    repeats: int,
    warmup: int,
    say: Callable[[str], Any] = lambda sentence: None,
) -> Measured:
    """Time the parts of an answer under every method.

    Args:
        methods: label -> method; the one called `none` is the baseline of the ratios.
        batch: questions asked at once.
        new_tokens: tokens to generate, exactly; None: see `Parts`.
        repeats, warmup: counted and uncounted rounds, after one that shows which methods work here.
        say: told which methods do not.
    """
    with PartClock(subject.model, subject.family) as clock:
        waiting: dict[int, Iterator[Sequence[Any]]] = defaultdict(partial(_batches, subject, batch))

        def answer(pruning: Pruning) -> Callable[[], dict[str, Any]]:
            return _answer(subject, pruning, clock, next(waiting[id(pruning)]), new_tokens)

        trial = try_each(subject.model, methods, answer, say)
        waiting.clear()
        turns = in_turns("parts", trial, answer, subject.device, repeats, warmup)
    return Measured(_rows(turns, trial), turns.complete, trial.left_out)


def _batches(subject: Subject, size: int) -> Iterator[Sequence[Any]]:
    """Yield the questions of one round after the other, from the start again at the end; nothing for random weights."""
    questions = subject.questions
    while True:
        for first in range(0, max(1, len(questions) - size + 1), size):
            yield questions[first : first + size]


def _answer(
    subject: Subject, pruning: Pruning, clock: PartClock, questions: Sequence[Any], new_tokens: int | None
) -> Callable[[], dict[str, Any]]:
    """Answer one batch; the returned function tells the seconds of the parts, and the report of the prefill."""
    from llava.eval.generation import model_inputs
    from llava.eval.prefetch import open_media

    started = now(subject.device)
    inputs, ready, limits = subject.inputs, started, {"max_new_tokens": new_tokens or RANDOM_ANSWER}
    if subject.processor is not None:
        opened = [open_media(subject.processor, question) for question in questions]
        inputs = model_inputs(subject.processor, questions, opened)
        ready = now(subject.device)
        limits = {"max_new_tokens": new_tokens or subject.facts["longest_answer"]}
    if new_tokens or subject.processor is None:
        limits["min_new_tokens"] = limits["max_new_tokens"]
    tokens = TokenClock()
    parts = clock.begin()
    with torch.inference_mode():
        subject.model.generate(
            **inputs, do_sample=False, num_beams=1, stopping_criteria=StoppingCriteriaList([tokens]), **limits
        )
    done = now(subject.device)
    prefill = tokens.times[0] - ready

    def told() -> dict[str, Any]:
        vision, language = parts.vision_seconds(), parts.prefill_seconds()
        return {
            "preprocess": ready - started if subject.processor is not None else None,
            "vision": vision,
            "language": language,
            "other": prefill - language - (vision or 0.0),
            "decode": done - tokens.times[0],
            "first_token": prefill,
            "new_tokens": len(tokens.times),
            "report": pruning.last,
        }

    return told


def _rows(turns: Turns, trial: Trial) -> list[dict[str, Any]]:
    rows = []
    for label in trial.working:
        values = turns.values[label]
        found = {f"{part}_seconds": _spread([value[part] for value in values]) for part in (*PARTS, "first_token")}
        unpruned = turns.seconds.get(NONE)
        rows.append(
            {
                "method": label,
                "status": OK,
                "total_seconds": spread(turns.seconds[label]),
                **found,
                "selection_seconds": spread([value["report"].selection_seconds for value in values]),
                "new_tokens": sum(value["new_tokens"] for value in values) / len(values),
                "speedup": ratios(unpruned, turns.seconds[label]).to_dict() if unpruned else None,
                **counts(values[-1]["report"]),
            }
        )
    return rows + trial.failed_rows()


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return spread(known) if known else None


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table for the screen."""
    return table(
        ["method", "kept", *PARTS, "total", "selection", "tokens", "speed-up (quartiles)"],
        [_cells(row) for row in rows],
    )


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["method"], DASH, row["status"], *[DASH] * 8]
    shown = [row[f"{part}_seconds"] for part in (*PARTS, "total", "selection")]
    return [
        row["method"],
        f"{sum(row['final']) / len(row['final']):.0f}",
        *(DASH if one is None else f"{1e3 * one['median']:.2f}" for one in shown),
        f"{row['new_tokens']:.1f}",
        times(row["speedup"]),
    ]
