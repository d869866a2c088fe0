"""Several methods at once from the command line's words: names, criteria of DART and budgets, with commas."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from llava.errors import ConfigurationError, LlavaError

DART, NONE, ALL = "dart", "none", "all"
EXAMPLE = "128"


@dataclass(frozen=True)
class Choice:
    """A method with its budget.

    Args:
        title: name of the method; "dart CRITERION" where a criterion was asked for.
        keep: the budget; None for the method that keeps everything.
        method: built.
    """

    title: str
    keep: int | float | None
    method: Any

    @property
    def label(self) -> str:
        """Title and budget in one word or two."""
        return self.title if self.keep is None else f"{self.title} {self.keep}"


def choices(methods: str, criteria: str = "", keep: str = EXAMPLE, layer: int | None = None) -> list[Choice]:
    """Return every method with every budget.

    Args:
        methods: names with commas, or `all`.
        criteria: pivot criteria of DART with commas, or `all`: `dart` then stands for one DART per criterion.
        keep: counts or fractions with commas.
        layer: decoder layer whose input is cut, for methods that cut once; None: their own.

    Raises:
        ConfigurationError: every word that is wrong, together.
    """
    from llava.reduction import registry
    from llava.reduction.dart import CRITERIA

    names, wanted = words(methods), words(criteria)
    names = registry.names() if names == [ALL] else names
    wanted = list(CRITERIA) if wanted == [ALL] else wanted
    if wanted and DART not in names:
        names.append(DART)
    problems = [] if names else ["--methods names no method: type for example --methods dart,random."]
    try:
        keeps = budgets(keep)
    except ConfigurationError as error:
        problems += error.problems
        keeps = [int(EXAMPLE)]
    found = []
    for name in names:
        settings: list[tuple[str, dict[str, Any]]] = [(name, {})]
        if name == DART and wanted:
            settings = [(f"{DART} {criterion}", {"criterion": criterion}) for criterion in wanted]
        for title, options in settings:
            for budget in [None] if name == NONE else keeps:
                given = {} if budget is None else {"keep": budget, **options}
                try:
                    found.append(Choice(title, budget, registry.create(name, **given, **_layer(name, layer))))
                except LlavaError as error:
                    told = getattr(error, "problems", [str(error)])
                    problems += [problem for problem in told if problem not in problems]
    if problems:
        raise ConfigurationError(*problems)
    return found


def methods_of(methods: str, criteria: str = "", keeps: Sequence[int | float] = (128,)) -> dict[str, Any]:
    """Return title -> method; with several budgets the title names the budget too. See `choices`."""
    found = choices(methods, criteria, ",".join(map(str, keeps)))
    return {choice.label if len(keeps) > 1 else choice.title: choice.method for choice in found}


def budgets(text: str) -> list[int | float]:
    """Return counts and fractions written with commas.

    Raises:
        ConfigurationError: something is neither a count of at least 1 nor a fraction in (0, 1].
    """
    found: list[int | float] = []
    problems = []
    for word in words(text):
        try:
            value = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            value = None
        if type(value) is int and value >= 1 or type(value) is float and 0 < value <= 1:
            found.append(value)
        else:
            problems.append(f"--keep {word!r} is not usable: give counts of at least 1 or fractions in (0, 1], 192,64.")
    if problems or not found:
        raise ConfigurationError(*(problems or [f"--keep {text!r} names no budget: type for example --keep 128."]))
    return found


def words(text: str) -> list[str]:
    """Return the parts between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _layer(name: str, layer: int | None) -> dict[str, int]:
    """The option `layer`, for methods that cut once inside the language model."""
    from llava.reduction import registry
    from llava.reduction.base import InLLM

    if layer is None or name not in registry.names():
        return {}
    cls = registry.get(name)
    cuts_once = issubclass(cls, InLLM) and "layer" in {field.name for field in fields(cls)}
    return {"layer": layer} if cuts_once else {}
