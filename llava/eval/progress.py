"""The bar on standard error: questions done, time left, and the score of the answers so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from llava.errors import LlavaError
from llava.eval.benchmarks.base import Row
from llava.eval.data import DataSet

FIRST_SCORE_AFTER = 2.0  # seconds
SHARE_OF_TIME = 0.02
"""Largest part of the time that may go into scoring what is there."""


class Progress:
    """A bar with the running score.

    Args:
        data: the benchmark that is scored.
        name: what is run, for the bar.
        total: questions of this process.
        done: of them, answered before.
        shown: whether there is a bar at all.
        clock: seconds.
    """

    def __init__(
        self,
        data: DataSet,
        name: str,
        total: int,
        done: int,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._data, self._shown, self._clock = data, shown, clock
        self._next = clock() + FIRST_SCORE_AFTER
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=f"{data.benchmark.title} {data.kind}, {name}",
            unit="q",
            disable=not shown,
        )

    def update(self, count: int, rows: Callable[[], Sequence[Row]]) -> None:
        """Move on by some questions; `rows` gives all answers so far when it is time to score them."""
        self._bar.update(count)
        if self._shown and count and self._clock() >= self._next:
            started = self._clock()
            text = running_score(self._data, rows())
            if text:
                self._bar.set_postfix_str(text)
            ended = self._clock()
            self._next = ended + max(FIRST_SCORE_AFTER, (ended - started) / SHARE_OF_TIME)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()


def running_score(data: DataSet, rows: Sequence[Row]) -> str:
    """Return `f1 85.90 %`, the headline of the answers so far, or nothing where they cannot be scored (yet)."""
    try:
        headline = data.benchmark.score(data.root, rows).headline
    except (LlavaError, ArithmeticError):
        return ""
    return "" if headline.value is None else f"{headline.name} {headline.value:.2f} {headline.unit}".rstrip()
