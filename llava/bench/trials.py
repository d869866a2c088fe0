"""Methods in turns: what works on a model and fits into the memory, and the rounds that are counted."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from llava.bench.timing import Turns, take_turns
from llava.errors import LlavaError, first_line
from llava.model.pruning import Pruning
from llava.reduction.base import Reduction

OK, OUT_OF_MEMORY = "ok", "out of memory"


@dataclass(frozen=True)
class Measured:
    """Rows of a measurement, whether it came to its end, and the methods that cannot work."""

    rows: list[dict[str, Any]]
    complete: bool
    left_out: dict[str, str]


class OutOfMemory(LlavaError):
    """The device, or the machine, has not enough memory for what was asked."""


@contextmanager
def told_when_too_large(what: str) -> Iterator[None]:
    """Turn a lack of memory within the block into an error that says what to change.

    Args:
        what: did not fit.

    Raises:
        OutOfMemory: in place of what torch raised.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{what} does not fit into the memory ({first_line(error)}): give fewer --tokens, a smaller --batch, fewer "
            "--layers or another --dtype."
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has not enough memory."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Trial:
    """What a first, uncounted round showed.

    Args:
        working: label -> pruning of the methods that work, in order; each is a `with` block.
        out_of_memory: label -> what the device said.
        left_out: label -> why the method cannot work on this model.
    """

    working: dict[str, Pruning]
    out_of_memory: dict[str, str]
    left_out: dict[str, str]

    def failed_rows(self) -> list[dict[str, Any]]:
        """Rows for the result of what did not fit."""
        return [{"method": label, "status": OUT_OF_MEMORY, "reason": why} for label, why in self.out_of_memory.items()]


def try_each(
    model: Any, methods: Mapping[str, Reduction], run: Callable[[Pruning], Any], say: Callable[[str], Any]
) -> Trial:
    """Run every method once; what is refused or does not fit is left out, and said."""
    trial = Trial({}, {}, {})
    for label, method in methods.items():
        try:
            with method(model) as pruning:
                result = run(pruning)
                result() if callable(result) else None
            trial.working[label] = pruning
            continue
        except LlavaError as error:
            trial.left_out[label] = str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            trial.out_of_memory[label] = first_line(error)
        free_memory()
        say(f"{label} is left out: {trial.left_out.get(label) or f'out of memory ({trial.out_of_memory[label]})'}")
    return trial


def in_turns(
    name: str,
    trial: Trial,
    run: Callable[[Pruning], Any],
    device: torch.device,
    repeats: int,
    warmup: int,
) -> Turns:
    """Let the methods that work take turns, each in its `with` block, and show a bar of that name."""
    runs = {label: partial(run, pruning) for label, pruning in trial.working.items()}
    bar = tqdm(total=len(runs) * (repeats + warmup), desc=name, leave=False, disable=None)
    with bar, told_when_too_large("A later round"):
        return take_turns(runs, device, repeats, warmup, bar.update, trial.working.__getitem__)
