"""Wrapping `forward` on an instance, and taking the wrapper off without a trace.

Instance attributes are used, not hooks, because torch.compile guards them: a graph compiled before the wrapper was put
on is not reused silently.
"""

import functools
from collections.abc import Callable
from typing import Any

_MISSING = object()


class Wrappers:
    """The methods wrapped by one pruning, in order."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        """Replace `owner.name` by a call of `around(original, *args, **kwargs)`; its signature stays visible."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        self._undo.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, wrapped)

    def unwrap_all(self) -> None:
        """Put back what was there before, newest first."""
        while self._undo:
            owner, name, before = self._undo.pop()
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
