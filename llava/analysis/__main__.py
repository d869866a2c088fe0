"""`python -m llava.analysis theory | overlap | position | objects`: what the kept tokens are, measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from llava import commandline
from llava.analysis.objects import Objects, objects
from llava.analysis.overlap import Overlap, overlap
from llava.analysis.position import Position, position
from llava.analysis.theory import Theory, theory

COMMANDS: dict[str, tuple[Callable[[Any], int | None], type]] = {
    "theory": (theory, Theory),
    "overlap": (overlap, Overlap),
    "position": (position, Position),
    "objects": (objects, Objects),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return commandline.run_command(COMMANDS, "llava.analysis", argv)


if __name__ == "__main__":
    sys.exit(main())
