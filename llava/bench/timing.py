"""Timing helpers: interleaved repeats, medians and quartiles, synchronised with the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in seconds."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
        return cls(statistics.median(values), low, high, len(values))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    runs: dict[str, Callable[[], None]],
    device: torch.device,
    repeats: int,
    warmup: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time every run `repeats` times in turn (a, b, a, b, ...), so that drift of the machine meets all of them alike.

    Args:
        runs: name -> what to time.
        warmup: rounds that are not counted.
        tick: called after every run.
    Returns:
        name -> seconds of every counted repeat.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            synchronize(device)
            started = time.perf_counter()
            run()
            synchronize(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
            tick()
    return seconds


def ratios(baseline: list[float], other: list[float]) -> Spread:
    """Speed-up of `other` over `baseline`, repeat by repeat of the same round."""
    return Spread.of([b / o for b, o in zip(baseline, other, strict=True)])
