"""How the compiled path compiles and to whom it speaks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


@dataclass(frozen=True)
class Fast:
    """Options of the compiled path; `fast=True` stands for all defaults.

    Args:
        backend: of torch.compile.
        patience: how often a size is met before it is compiled; a size that comes once is not worth the wait.
        bucket: lengths are rounded up to multiples of so many tokens, so that few sizes are met.
        graphs: sizes that are compiled at most, and `caches` static caches that are kept at most.
        say: told once why something is not compiled; by default a Python warning.
    """

    backend: str = "inductor"
    patience: int = 1
    bucket: int = 64
    graphs: int = 32
    caches: int = 2
    say: Callable[[str], None] = field(default=_warn, compare=False)

    def rounded(self, length: int) -> int:
        """The length of the bucket for `length` tokens."""
        return -(-length // self.bucket) * self.bucket
