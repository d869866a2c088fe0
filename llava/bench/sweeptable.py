"""A sweep on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.bench.breakeven import BreakEven
from llava.bench.prefill import milliseconds, times
from llava.bench.trials import OK
from llava.eval.screen import DASH, number, table

HEADER = ["tokens", "batch", "kernel", "method", "kept", "prefill ms (quartiles)", "speed-up (quartiles)", "LLM only"]
HEADER += ["FLOPs say", "selection", "cache MB", "peak MB", "ms per token"]


def lines(rows: Sequence[Mapping[str, Any]], break_even: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for every method in every cell, and a sentence for every break-even length."""
    ordered = sorted(rows, key=lambda row: (row["kernel"], row["batch"], row["tokens"] or 0))
    cells = [line for row in ordered for line in _cell(row)]
    return [*table(HEADER, cells), *(_sentence(one) for one in break_even)]


def _cell(row: Mapping[str, Any]) -> list[list[str]]:
    shown = row.get("visual_tokens") or row["tokens"]
    place = [DASH if shown is None else str(shown), str(row["batch"]), row["kernel"]]
    if not row["methods"]:
        return [[*place, DASH, DASH, row["status"], *[DASH] * 7]]
    return [[*place, *_method(one)] for one in row["methods"]]


def _method(row: Mapping[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["method"], DASH, row["status"], *[DASH] * 7]
    decoded = row.get("decode") or {}
    share = row["selection_share"]
    return [
        row["method"],
        f"{sum(row['final']) / len(row['final']):.0f}",
        milliseconds(row["prefill_seconds"]),
        times(row["speedup"]),
        DASH if row["llm_speedup"] is None else f"{row['llm_speedup']['median']:.2f}x",
        f"{row['flops_ratio']:.2f}x",
        DASH if share is None else f"{share:.2%}",
        number(row["cache_bytes"] / 1e6, 1),
        number(row["peak_bytes"] and row["peak_bytes"] / 1e6, 0),
        milliseconds(decoded.get("token_seconds")),
    ]


def _sentence(one: Mapping[str, Any]) -> str:
    clause = BreakEven(one["wins"], one["at"], tuple(one["measured"])).words("visual tokens")
    return f"{one['method']} (batch {one['batch']}, {one['kernel']}): its prefill {clause}."
