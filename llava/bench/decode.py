"""`python -m llava.bench decode`: time of every generated token, with the cache as long as the method left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteriaList

from llava.bench import results
from llava.bench.breakeven import over_new_tokens
from llava.bench.options import NONE, TimedComparison
from llava.bench.prefill import counts, milliseconds, times, title
from llava.bench.subject import Subject, build, environment
from llava.bench.timing import TokenClock, Turns, ratios, spread
from llava.bench.trials import OK, Measured, Trial, in_turns, try_each
from llava.commandline import too_small, warn
from llava.eval.generation import now
from llava.eval.screen import DASH, number, table
from llava.model.accounting import cache_bytes
from llava.model.pruning import Pruning
from llava.reduction.base import Reduction


@dataclass(frozen=True)
class Decode(TimedComparison):
    """Time decoding, token by token, of methods against the unpruned model, interleaved in one process."""

    new_tokens: int = 64
    """Tokens to generate, the first one (which ends the prefill) included."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        return too_small(self, new_tokens=2) + super().problems()


@dataclass(frozen=True)
class Generation:
    """One generation: seconds to the first token, of every further one, and what was counted."""

    first: float
    steps: list[float]
    report: Any
    cache_at_end: int


def run(options: Decode) -> None:
    """Measure, show, write."""
    methods = options.choice.build()
    subject = build(options.model, options.prompt)
    where = environment(subject.model)
    measured = measure(subject, methods, options.new_tokens, options.times.repeats, options.times.warmup, warn)
    results.publish(
        "decode",
        options,
        where,
        subject.facts,
        measured,
        f"{title(subject, where)}, {options.new_tokens} new tokens",
        lines(measured.rows),
    )


def measure(
    subject: Subject,
    methods: dict[str, Reduction],
    new_tokens: int,
    repeats: int,
    warmup: int,
    say: Callable[[str], Any] = lambda sentence: None,
) -> Measured:
    """Generate exactly `new_tokens` greedy tokens under every method, as transformers' `generate()` does it.

    Args:
        methods: label -> method; the one called `none` is the baseline of the ratios.
        repeats, warmup: counted and uncounted rounds, after one that shows which methods work here.
        say: told which methods do not.
    """

    def generation(pruning: Pruning) -> Callable[[], Generation]:
        return generate(subject, pruning, new_tokens)

    trial = try_each(subject.model, methods, generation, say)
    turns = in_turns("decode", trial, generation, subject.device, repeats, warmup)
    return Measured(_rows(subject, turns, trial), turns.complete, trial.left_out)


def generate(subject: Subject, pruning: Pruning, new_tokens: int) -> Callable[[], Generation]:
    """Generate exactly `new_tokens` tokens; the returned function tells what was measured."""
    clock, started = TokenClock(), now(subject.device)
    with torch.inference_mode():
        output = subject.model.generate(
            **subject.inputs,
            do_sample=False,
            num_beams=1,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            return_dict_in_generate=True,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
    held = cache_bytes(output.past_key_values)
    return lambda: Generation(clock.times[0] - started, clock.steps(), pruning.last, held)


def _rows(subject: Subject, turns: Turns, trial: Trial) -> list[dict[str, Any]]:
    def tokens(label: str) -> list[float]:
        return [sum(one.steps) / len(one.steps) for one in turns.values[label]]

    def first(label: str) -> list[float]:
        return [one.first for one in turns.values[label]]

    rows, has_baseline = [], NONE in trial.working
    for label in trial.working:
        last: Generation = turns.values[label][-1]
        each, begun = spread(tokens(label)), spread(first(label))
        read = decoder_bytes(subject) + (last.cache_at_end + last.report.cache_bytes) // 2
        row = {
            "method": label,
            "status": OK,
            "new_tokens": len(last.steps) + 1,
            "first_token_seconds": begun,
            "token_seconds": each,
            "step_seconds": spread([step for one in turns.values[label] for step in one.steps]),
            "generate_seconds": spread(turns.seconds[label]),
            "token_speedup": None,
            "generate_speedup": None,
            "break_even_new_tokens": None,
            "read_bytes_per_token": read,
            "read_bytes_per_second": read / each["median"],
            "cache_bytes_at_end": last.cache_at_end,
            **counts(last.report),
        }
        if has_baseline:
            row["token_speedup"] = ratios(tokens(NONE), tokens(label)).to_dict()
            row["generate_speedup"] = ratios(turns.seconds[NONE], turns.seconds[label]).to_dict()
        if has_baseline and label != NONE:
            unpruned = spread(first(NONE))["median"], spread(tokens(NONE))["median"]
            ends = over_new_tokens((unpruned[0], begun["median"]), (unpruned[1], each["median"]))
            row["break_even_new_tokens"] = ends.to_dict()
        rows.append(row)
    return rows + trial.failed_rows()


def decoder_bytes(subject: Subject) -> int:
    """Return the bytes of the weights that every generated token reads: decoder layers, language head."""
    layers: Any = subject.family.decoder(subject.model).layers
    modules = [*layers, subject.model.get_output_embeddings()]
    return sum(weight.nbytes for module in modules if module is not None for weight in module.parameters())


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table for the screen."""
    header = ["method", "kept", "ms per token (quartiles)", "speed-up (quartiles)", "first token ms", "whole answer"]
    return table([*header, "cache MB", "read GB/s"], [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["method"], DASH, row["status"], *[DASH] * 5]
    return [
        row["method"],
        f"{sum(row['final']) / len(row['final']):.0f}",
        milliseconds(row["token_seconds"]),
        times(row["token_speedup"]),
        f"{1e3 * row['first_token_seconds']['median']:.1f}",
        DASH if row["generate_speedup"] is None else f"{row['generate_speedup']['median']:.2f}x",
        number(row["cache_bytes_at_end"] / 1e6, 1),
        number(row["read_bytes_per_second"] / 1e9, 1),
    ]
