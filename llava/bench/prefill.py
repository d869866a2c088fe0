"""`python -m llava.bench prefill`: time of the prefill under methods, beside what the operations promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from llava.bench import results
from llava.bench.options import NONE, TimedComparison
from llava.bench.subject import Subject, build, environment
from llava.bench.timing import PartClock, Turns, ratios, spread
from llava.bench.trials import OK, Measured, Trial, in_turns, try_each
from llava.commandline import warn
from llava.eval.screen import DASH, number, table
from llava.model.pruning import Pruning
from llava.model.report import Report
from llava.reduction.base import Reduction


@dataclass(frozen=True)
class Prefill(TimedComparison):
    """Time the prefill of methods against the unpruned model, interleaved in one process."""


def run(options: Prefill) -> None:
    """Measure, show, write."""
    methods = options.choice.build()
    subject = build(options.model, options.prompt)
    where = environment(subject.model)
    measured = measure(subject, methods, options.times.repeats, options.times.warmup, warn)
    results.publish("prefill", options, where, subject.facts, measured, title(subject, where), lines(measured.rows))


@torch.no_grad()
def measure(
    subject: Subject,
    methods: dict[str, Reduction],
    repeats: int,
    warmup: int,
    say: Callable[[str], Any] = lambda sentence: None,
) -> Measured:
    """Time the prefill (vision tower, projector, decoder, one row of logits, a fresh cache) under every method.

    Args:
        methods: label -> method; the one called `none` is the baseline of the ratios.
        repeats, warmup: counted and uncounted rounds, after one that shows which methods work here.
        say: told which methods do not.
    """
    model, peaks = subject.model, _Peaks(subject.device)
    with PartClock(model, subject.family) as clock:

        def prefill(pruning: Pruning) -> Callable[[], tuple[Any, float | None, float]]:
            times = clock.begin()
            cache = DynamicCache(config=model.config.get_text_config())
            model(**subject.inputs, past_key_values=cache, logits_to_keep=1)
            return lambda: (pruning.last, times.vision_seconds(), times.prefill_seconds())

        trial = try_each(model, methods, lambda pruning: peaks.note(pruning, prefill), say)
        turns = in_turns("prefill", trial, prefill, subject.device, repeats, warmup)
    return Measured(_rows(subject, turns, trial, peaks.bytes), turns.complete, trial.left_out)


class _Peaks:
    """The most memory that the device held at once during a run, weights included; CUDA only."""

    def __init__(self, device: torch.device):
        self.device = device
        self.bytes: dict[int, int] = {}

    def note(self, pruning: Pruning, run: Callable[[Pruning], Any]) -> None:
        counts = self.device.type == "cuda"
        if counts:
            torch.cuda.reset_peak_memory_stats(self.device)
        run(pruning)
        if counts:
            self.bytes[id(pruning)] = torch.cuda.max_memory_allocated(self.device)


def _rows(subject: Subject, turns: Turns, trial: Trial, peaks: dict[int, int]) -> list[dict[str, Any]]:
    if not trial.working:
        return trial.failed_rows()
    tower = subject.facts.get("tower_flops")
    unpruned, unpruned_llm = turns.seconds.get(NONE), [llm for *_, llm in turns.values.get(NONE, [])]
    whole = None
    if unpruned:
        beyond = subject.text_layers / subject.layers - 1  # layers of the whole model that were not built
        whole = spread(unpruned)["median"] + spread(unpruned_llm)["median"] * beyond
    rows = []
    for label in trial.working:
        reports, vision, llm = zip(*turns.values[label], strict=True)
        last: Report = reports[-1]
        selection = spread([report.selection_seconds for report in reports])
        exact, full = sum(last.flops_exact), sum(last.flops_exact_unpruned)
        rows.append(
            {
                "method": label,
                "status": OK,
                "prefill_seconds": spread(turns.seconds[label]),
                "vision_seconds": None if None in vision else spread(vision),
                "llm_seconds": spread(llm),
                "selection_seconds": selection,
                "speedup": ratios(unpruned, turns.seconds[label]).to_dict() if unpruned else None,
                "llm_speedup": ratios(unpruned_llm, llm).to_dict() if unpruned else None,
                "flops_ratio": full / exact,
                "flops_ratio_with_vision": None if tower is None else (full + tower) / (exact + tower),
                "selection_share": selection["median"] / whole if whole else None,
                "whole_unpruned_seconds": whole,
                "peak_bytes": peaks.get(id(trial.working[label])),
                **counts(last),
            }
        )
    return rows + trial.failed_rows()


def counts(report: Report) -> dict[str, Any]:
    """Return the token, cache and operation counts of a report."""
    names = ("visual", "asked", "final", "mean_over_layers", "cache_bytes", "cache_bytes_unpruned")
    costs = ("flops_paper", "flops_paper_unpruned", "flops_exact", "flops_exact_unpruned")
    return {name: getattr(report, name) for name in (*names, *costs)}


def title(subject: Subject, where: dict[str, Any]) -> str:
    """Return one line: what is measured, where."""
    facts = subject.facts
    tokens = f"{facts['visual_tokens']} visual tokens, " if "visual_tokens" in facts else ""
    return (
        f"{facts['model']}, {tokens}prompts of {facts['prompt_tokens']} tokens, batch {facts['batch']}, "
        f"{where['device']}, {where['dtype']}, {where['attention']}"
    )


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table for the screen."""
    header = ["method", "kept", "prefill ms (quartiles)", "speed-up (quartiles)", "FLOPs say", "LLM only", "FLOPs say"]
    return table([*header, "vision ms", "selection ms", "share", "cache MB"], [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["method"], DASH, row["status"], *[DASH] * 8]
    return [
        row["method"],
        f"{sum(row['final']) / len(row['final']):.0f}",
        milliseconds(row["prefill_seconds"]),
        times(row["speedup"]),
        f"{number(row['flops_ratio_with_vision'])}x",
        DASH if row["llm_speedup"] is None else f"{row['llm_speedup']['median']:.2f}x",
        f"{row['flops_ratio']:.2f}x",
        DASH if row["vision_seconds"] is None else f"{1e3 * row['vision_seconds']['median']:.1f}",
        f"{1e3 * row['selection_seconds']['median']:.2f}",
        DASH if row["selection_share"] is None else f"{row['selection_share']:.2%}",
        number(row["cache_bytes"] and row["cache_bytes"] / 1e6, 1),
    ]


def milliseconds(spread: dict[str, float] | None) -> str:
    """Return `12.3 (12.1-12.6)`."""
    return (
        DASH
        if spread is None
        else " ".join((f"{1e3 * spread['median']:.1f}", f"({1e3 * spread['low']:.1f}-{1e3 * spread['high']:.1f})"))
    )


def times(spread: dict[str, float] | None) -> str:
    """Return `4.42x (4.41-4.50)`."""
    return DASH if spread is None else f"{spread['median']:.2f}x ({spread['low']:.2f}-{spread['high']:.2f})"
