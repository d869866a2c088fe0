"""torch.compile with a way back: whatever goes wrong, the function is run as it is, and the reason told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch

from llava.errors import first_line
from llava.model.fast.options import Fast

Function = Callable[..., Any]


def _nothing() -> None:
    """Undo nothing."""


class Compiler:
    """Runs functions, compiled for every size that is met often enough.

    Args:
        options: see `Fast`.
        device: where the functions compute; on CUDA their launches are recorded as a graph.

    Attributes:
        reason: why nothing is compiled any more; None: it is.
    """

    def __init__(self, options: Fast, device: torch.device):
        self.options, self.on_gpu = options, device.type == "cuda"
        self.reason: str | None = None
        self._met: Counter[Hashable] = Counter()
        self._compiled: dict[Hashable, Function] = {}
        self._ran: set[Hashable] = set()
        self._said: set[str] = set()

    def run(self, function: Function, size: Hashable, *args: Any, undo: Callable[[], None] = _nothing) -> Any:
        """Return `function(*args)`.

        Args:
            function: a function of tensors without side effects besides those that `undo` takes back.
            size: function and sizes of the arguments; every one is compiled by itself.
            undo: called before the function is run again, uncompiled, because the compiled one has failed.
        """
        self._met[size] += 1
        if self.reason is not None or self._met[size] <= self.options.patience:
            return function(*args)
        if size not in self._compiled:
            if len(self._compiled) >= self.options.graphs:
                self.say(f"{len(self._compiled)} sizes are compiled, which is the most: others run uncompiled.")
                return function(*args)
            self._compiled[size] = self._compile(function)
        try:
            return self._call(size, args)
        except torch.OutOfMemoryError:
            raise
        except KeyboardInterrupt:
            self.give_up("compiling was interrupted")
            raise
        except Exception as error:  # compilers fail in many ways
            cause = getattr(error, "inner_exception", None) or error
            self.give_up(f"{type(cause).__name__}: {first_line(cause)}")
            undo()
            return function(*args)

    def give_up(self, reason: str) -> None:
        """Compile nothing any more, and run nothing compiled."""
        self.reason = reason
        self._compiled.clear()
        self.say(f"The fast path is not used: {reason}. Going on with the plain one.")

    def say(self, sentence: str) -> None:
        """Tell a reason, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.options.say(sentence)

    def _compile(self, function: Function) -> Function:
        mode = "reduce-overhead" if self.on_gpu and self.options.backend == "inductor" else None
        return torch.compile(function, backend=self.options.backend, mode=mode, fullgraph=True, dynamic=False)

    def _call(self, size: Hashable, args: tuple[Any, ...]) -> Any:
        if self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        if size in self._ran:
            output = self._compiled[size](*args)
        else:
            # All sizes of a function share its code, which torch compiles only so many times by default.
            with torch._dynamo.config.patch(recompile_limit=4 * self.options.graphs):
                output = self._compiled[size](*args)
            self._ran.add(size)
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, output) if self.on_gpu else output
