"""`python -m llava.methods`: every method with its paper, stage, needs, options, presets and model families.

Everything is read from the classes, those of a user's own file included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from llava.commandline import run, say
from llava.errors import ConfigurationError
from llava.reduction.base import Reduction

WIDTH = 10  # of the first column


@dataclass(frozen=True)
class ListConfig:
    """What is known about the methods."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Methods to describe; all of them if none is named."""
    method_file: Annotated[str | None, tyro.conf.arg(metavar="PATH.py[:CLASS]")] = None
    """Python file with a method of your own, described as well."""
    short: bool = False
    """One line per method."""
    found: tyro.conf.Suppress[dict[str, type[Reduction]]] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Look the methods up; one sentence per method that is not there."""
        from llava.reduction import registry

        problems: list[str] = []
        names = list(self.names)
        if self.method_file is not None:
            try:
                names.append(registry.load_user_file(self.method_file))
            except ConfigurationError as error:
                problems += error.problems
        for name in names or registry.names():
            try:
                self.found[name] = registry.get(name)
            except ConfigurationError as error:
                problems += error.problems
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m llava.methods`."""
    return run(print_methods, ListConfig, argv, prog="python -m llava.methods")


def print_methods(config: ListConfig) -> None:
    """Describe the methods on the screen."""
    describe, gap = (_line, "\n") if config.short else (describe_method, "\n\n")
    say(gap.join("\n".join(describe(cls)) for cls in config.found.values()))


def describe_method(cls: type[Reduction]) -> list[str]:
    """Return the lines that describe a method's class."""
    from llava.reduction.checks import options_of

    rows = [
        ("stage", stage_of(cls)),
        ("paper", cls.paper or "none"),
        ("needs", ", ".join(needs_of(cls)) or "nothing but the tokens"),
        *(("" if number else "options", _option(field)) for number, field in enumerate(options_of(cls))),
        *(("" if number else "presets", _preset(*item)) for number, item in enumerate(cls.presets.items())),
        ("families", families_of(cls)),
    ]
    return [f"{cls.name}: {summary(cls)}", *(f"  {name:{WIDTH}}{text}" for name, text in rows)]


def summary(cls: type[Reduction]) -> str:
    """The first sentence of the method's description, without a final dot."""
    return (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")


def needs_of(cls: type[Reduction]) -> list[str]:
    """What the method, with its default options, reads besides the tokens themselves."""
    from llava.reduction.image import BeforeLLM, Encoder

    found: list[str] = []
    for part in cls().parts:
        if isinstance(part, BeforeLLM):
            found += ["[CLS] token of the vision tower"] * bool(part.needs_cls)
            found += ["tiles"] * bool(part.needs_tiles)
            found += ["blocks of the vision tower"] * bool(part.tower_layers or isinstance(part, Encoder))
        found += [NEEDS.get(need, need) for need in sorted(getattr(part, "needs", ()))]
    return list(dict.fromkeys(found))


NEEDS = {
    "attention": "attention rows of the layer before the cut",
    "attention_ahead": "attention rows of the layer after the cut",
    "keys": "keys of the layer before the cut",
    "normed": "hidden states after the final norm",
    "received": "attention received in the layer before the cut",
    "rotary": "positions",
    "seeds": "a seed from the prompt",
    "values": "values of the layer before the cut",
}


def families_of(cls: type[Reduction]) -> str:
    """The model families the method works on with its default options."""
    from llava.model.families import FAMILIES
    from llava.reduction.image import BeforeLLM

    parts = [part for part in cls().parts if isinstance(part, BeforeLLM)]
    fitting = [family.name for family in FAMILIES if all(_fits(part, family) for part in parts)]
    where = " (vision towers with a [CLS] token)" if any(part.needs_cls for part in parts) else ""
    return ", ".join(fitting) + where


def _fits(part: Any, family: Any) -> bool:
    """Whether a family can do what a method before the language model asks for, as far as its class tells."""
    from llava.reduction.image import Encoder

    if part.needs_tiles and not family.tiled:
        return False
    if part.resizes and family.tiled:
        return False
    looks_inside = part.tower_layers or part.resizes or isinstance(part, Encoder)
    return bool(family.token_by_token or not looks_inside)


def stage_of(cls: type[Reduction]) -> str:
    """Where the method cuts, with its default options."""
    cut_at = cls().layers
    return cls.stage + (f", before layer {', '.join(map(str, cut_at))}" if cut_at else "")


def _option(field: Any) -> str:
    choices, low = field.metadata.get("choices"), field.metadata.get("low")
    text = f"{field.name}={field.default!r}"
    if field.name == "keep":
        return text + "  a count from 1, or a fraction in (0, 1]"
    if choices:
        return text + f"  one of {', '.join(choices)}"
    return text if low is None else text + f"  at least {low}"


def _preset(name: str, options: dict[str, Any]) -> str:
    return f"{name}: " + (", ".join(f"{option}={value!r}" for option, value in options.items()) or "the defaults")


def _line(cls: type[Reduction]) -> list[str]:
    return [f"{cls.name:14} {cls.paper:18} {cls.stage}: {summary(cls)}"]


if __name__ == "__main__":
    sys.exit(main())
