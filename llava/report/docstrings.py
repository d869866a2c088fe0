"""Reading what the docstrings of a method's module and class say, for its page."""

from __future__ import annotations

import inspect
import re
import sys

from llava.reduction import registry
from llava.reduction.base import Reduction
from llava.reduction.checks import options_of

SOURCE, DIFFERENCES = "Source", "Differences from the official code"
SELECTS, AVOID = "How it selects", "When not to use it"
HEADS = (SOURCE, DIFFERENCES, SELECTS, AVOID)
"""Paragraphs that the docstring of a method's module may have: `HEAD: text`, beginning a line."""
_REFERENCE = re.compile(r"see `(\w+)`([.;,]|$)\s*")


def module_doc(cls: type[Reduction]) -> str:
    """The docstring of the module a method is defined in."""
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")


def idea(cls: type[Reduction]) -> str:
    """The method in one sentence: the first line of its module without the name; of its class if the module has two."""
    first = module_doc(cls).split("\n")[0]
    name, _, text = first.partition(": ")
    text = text or name
    return _sentence(class_doc(cls)[0] if _shares_module(cls) else text)


def paragraphs(cls: type[Reduction]) -> dict[str, str]:
    """The paragraphs of the module's docstring by their heads (`HEADS`); those that are not there are left out."""
    parts = re.split(rf"^({'|'.join(HEADS)}):\s", module_doc(cls), flags=re.MULTILINE)
    return {head: _sentence(_joined(text.strip())) for head, text in zip(parts[1::2], parts[2::2], strict=True)}


def class_doc(cls: type[Reduction]) -> tuple[str, str]:
    """First sentence of the class's docstring, and the paragraphs that are not about arguments or errors."""
    first, *rest = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    told = [part.strip("\n") for part in rest if not re.match(r"(Args|Raises|Returns):\n", part.lstrip("\n"))]
    return _joined(first), "\n\n".join(map(_joined, told))


def options(cls: type[Reduction]) -> dict[str, str]:
    """What every option of a method means, references to other classes (``see `InLLM` ``) resolved."""
    return {field.name: _meaning(cls, field.name) for field in options_of(cls)}


def _meaning(cls: type, name: str) -> str:
    """What the class, or the nearest of its bases that speaks of it, says about an option."""
    bases = [base for base in cls.__mro__ if name in _arguments(base)]
    if not bases:
        return ""
    text = _arguments(bases[0])[name]
    found = _REFERENCE.match(text)
    if not found:
        return text
    known = {base.__name__: base for base in cls.__mro__}
    general = _meaning(known[found[1]], name) if found[1] in known else ""
    rest = text[found.end() :]
    return general.rstrip(".") + (f"; {rest}" if found[2] == ";" else f". {rest}" if rest else ".")


def _arguments(cls: type) -> dict[str, str]:
    """Name -> text in the `Args:` of a class; what follows a reference that several names share is about the first."""
    parts = re.split(r"^(\w+):$", inspect.cleandoc(cls.__doc__ or ""), flags=re.MULTILINE)
    blocks = dict(zip(parts[1::2], parts[2::2], strict=True))
    found: dict[str, str] = {}
    for item in re.split(r"^ {4}(?=\w)", blocks.get("Args", ""), flags=re.MULTILINE)[1:]:
        names, _, text = item.split("\n\n")[0].partition(": ")
        text = " ".join(text.split())
        for number, name in enumerate(names.split(", ")):
            reference = _REFERENCE.match(text)
            found[name] = f"see `{reference[1]}`." if reference and number else text
    return found


def _shares_module(cls: type[Reduction]) -> bool:
    """Whether the module defines another registered method as well."""
    return sum(registry.get(name).__module__ == cls.__module__ for name in registry.names()) > 1


def _joined(text: str) -> str:
    """The text with one line per paragraph and per item of a list."""
    return re.sub(r"(?<!\n)\n(?!\n|\d+\. )\s*", " ", text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
