"""How many questions are asked at once, found while asking: more as long as that answers more of them in a second."""

from __future__ import annotations

import time
from typing import Any

import torch

AUTO = "auto"
FIRST, LARGEST = 4, 64
GAIN = 1.05
"""A size twice as large has to answer so many times as many questions a second to be worth its memory."""
TRIALS = 2
"""Batches of a size before it is judged, so that one slow batch decides nothing."""
SHARE = 0.8
"""Of the memory that is free at the start, what a batch may be expected to take."""


class BatchSize:
    """The number of questions asked at once; `auto` doubles it while throughput grows and memory allows.

    Args:
        wanted: a number, which only running out of memory makes smaller, or "auto".
        device: where the model computes.

    Attributes:
        size: questions to ask at once now.
        largest: most that will ever be asked at once; batches are planned for so many.
    """

    def __init__(self, wanted: int | str, device: torch.device):
        self.grows = wanted == AUTO
        self.size = FIRST if wanted == AUTO else int(wanted)
        self.largest = LARGEST if wanted == AUTO else int(wanted)
        self.device = device
        self._free, self._before = free_memory(device), used_memory(device)
        self._best: tuple[float, int] = (0.0, self.size)  # (questions a second, size)
        self._tried: list[float] = []
        self._started = 0.0

    def begin(self) -> None:
        """A batch is asked now."""
        if self.grows and self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._started = time.perf_counter()

    def done(self, n_questions: int, warm: bool) -> None:
        """A batch of `n_questions` is answered; the first of a run (not `warm`) says nothing about speed."""
        if not self.grows or n_questions != self.size or not warm:
            return
        self._tried.append(n_questions / max(time.perf_counter() - self._started, 1e-9))
        if len(self._tried) < TRIALS:
            return
        speed, self._tried = max(self._tried), []
        if self._best[0] and speed < GAIN * self._best[0]:
            self.size, self.grows = self._best[1], False
            return
        self._best = (speed, self.size)
        self.grows = 2 * self.size <= self.largest and self._fits(2 * self.size)
        self.size *= 2 if self.grows else 1

    def halve(self, n_questions: int) -> None:
        """A batch of `n_questions` did not fit; none as large is tried again."""
        self.size, self.grows = -(-n_questions // 2), False

    def _fits(self, size: int) -> bool:
        """Whether a batch of `size` will fit, if memory grows with the number of questions."""
        taken = used_memory(self.device) - self._before
        return taken * size / self.size <= SHARE * self._free


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device (for the CPU: in the machine, a container's limit not counted)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return psutil.virtual_memory().available


def used_memory(device: torch.device) -> int:
    """Return the most bytes that were in use so far: on a GPU since `begin`, else by this process ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def peak_resident() -> int:
    """Return the largest resident size of this process so far in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    import sys

    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
