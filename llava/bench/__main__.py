"""The command `python -m llava.bench COMMAND [options]`: speed, memory and operations, against the unpruned model.

python -m llava.bench prefill --shape llava-next-7b --methods all
python -m llava.bench decode --model-path embedded --keep 64
python -m llava.bench sweep --tokens 576,1024,1600,2304,2880 --output sweep.json
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llava import commandline

COMMANDS = {
    "prefill": "llava.bench.prefill:run:Prefill",
    "decode": "llava.bench.decode:run:Decode",
    "parts": "llava.bench.parts:run:Parts",
    "memory": "llava.bench.memory:run:Memory",
    "flops": "llava.bench.flops:run:Flops",
    "sweep": "llava.bench.sweep:run:Sweep",
    "total": "llava.bench.total:run:Total",
    "pipeline": "llava.bench.pipeline:pipeline:PipelineOptions",
    "serving": "llava.bench.serving:serving:Serving",
}
"""Name -> module, function and options; only the module of the command that is asked for is imported."""


class Commands(Mapping[str, tuple[Callable[[Any], Any], type]]):
    """The commands as `run_command` wants them."""

    def __getitem__(self, name: str) -> tuple[Callable[[Any], Any], type]:
        module, function, options = COMMANDS[name].split(":")
        found = importlib.import_module(module)
        return getattr(found, function), getattr(found, options)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return commandline.run_command(Commands(), "llava.bench", argv)


if __name__ == "__main__":
    sys.exit(main())
