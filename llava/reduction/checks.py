"""Checks of a method's options: every wrong value is described, and all of them are reported together."""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

KEEP_HELP = "give a count of at least 1 (keep=128) or a fraction in (0, 1] (keep=0.222)"


def option(default: Any, *, low: float | None = None, choices: Sequence[str] | None = None) -> Any:
    """Return a dataclass field that knows its allowed range.

    Args:
        default: value when the user says nothing.
        low: smallest allowed number.
        choices: allowed words.
    """
    return dataclasses.field(default=default, metadata={"low": low, "choices": tuple(choices) if choices else None})


def private(default: Any) -> Any:
    """Return a dataclass field that is no option: not listed, not settable by name or position, not compared."""
    return dataclasses.field(default=default, compare=False, repr=False, kw_only=True, metadata={"private": True})


def options_of(cls: type) -> tuple[dataclasses.Field, ...]:
    """Return the fields of a method's dataclass that a user may set."""
    return tuple(field for field in dataclasses.fields(cls) if field.init and not field.metadata.get("private"))


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x', 'y'?` for the nearest known words, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


def value_problems(method: Any) -> list[str]:
    """Return one sentence per field whose value has the wrong kind or lies outside its range."""
    kind: Any = type(method)
    hints = _hints(kind)
    found = (_problem(field, getattr(method, field.name), hints[field.name]) for field in options_of(kind))
    return [problem for problem in found if problem]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; evaluating their texts takes longer than all the checks."""
    return typing.get_type_hints(cls)


def _problem(field: dataclasses.Field, value: Any, hint: Any) -> str | None:
    name, low, choices = field.name, field.metadata.get("low"), field.metadata.get("choices")
    if name == "keep":
        usable = _usable_keep(value) or (value is None and _has_kind(value, hint))
        return None if usable else f"keep={value!r} is not a budget: {KEEP_HELP}."
    if choices and value not in choices:
        near = suggestion(value, choices) if isinstance(value, str) else ""
        return f"{name}={value!r} is not known.{near} Allowed: {', '.join(choices)}."
    if not _has_kind(value, hint):
        return f"{name}={value!r} is not {_kind_name(hint)}; the default is {name}={field.default!r}."
    if None not in (low, value) and not value >= low:
        return f"{name}={value!r} is too small: it must be at least {low}; the default is {name}={field.default!r}."
    return None


def _usable_keep(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return value >= 1
    return isinstance(value, float) and math.isfinite(value) and 0 < value <= 1


def _has_kind(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_has_kind(value, part) for part in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    return isinstance(value, kind) if isinstance(kind, type) else True


def _kind_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_kind_name(part) for part in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "None"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
