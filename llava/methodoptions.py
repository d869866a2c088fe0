"""The command line's words for a method and its budget, and the method they describe."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from llava.errors import ConfigurationError, LlavaError

EVERY = "all"


@dataclass(frozen=True)
class MethodOptions:
    """Which visual tokens survive."""

    method: str = "dart"
    """Reduction method; `none` keeps every token; `visionzip+dart` is one after another; `all`: every method."""
    keep: Annotated[int | float | str | None, tyro.conf.arg(metavar="COUNT|FRACTION")] = None
    """Visual tokens left per image: a count (128) or a fraction in (0, 1] (0.222)."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Published setting of the method, e.g. 192, 128 or 64; `python -m llava.methods` lists them."""
    reduction_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Fraction of visual tokens removed, as in the released scripts (0.778); the family's released rule applies."""
    max_num_tokens: Annotated[int | None, tyro.conf.arg(metavar="COUNT")] = None
    """Token budget, as in the released scripts (128); the family's released rule applies."""
    layer: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Decoder layer whose input is cut (0-based)."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Any further option of the method, e.g. `--set pivots_visual=8`; may be repeated."""
    method_file: Annotated[str | None, tyro.conf.arg(metavar="PATH.py[:CLASS]")] = None
    """Python file with a method of your own."""

    def build(self, family: str = "llava", *, seed: int | None = None) -> Any:
        """Return the method these options describe.

        Args:
            family: model family whose released budget rule turns `reduction_ratio` and `max_num_tokens` into a count.
            seed: given to methods that have a `seed` field and were not given one with `set`.

        Raises:
            ConfigurationError: lists everything that is wrong, not only the first mistake.
        """
        from llava.reduction import registry

        problems = self._range_problems()
        options, malformed = self._named_options()
        problems += malformed
        name = self.method
        if self.method_file is not None:
            try:
                name = registry.load_user_file(self.method_file)
            except LlavaError as error:
                raise ConfigurationError(*problems, *_sentences(error)) from error
        if seed is not None and "seed" in _fields(registry, name):
            options.setdefault("seed", seed)
        try:
            # A budget known to be wrong is left out, so that the registry still judges the other options.
            method = self._create(registry, name, family, options, {} if problems else self._budget(name, family))
        except LlavaError as error:
            problems += _sentences(error)
        if problems:
            raise ConfigurationError(*problems)
        return method

    def variants(self) -> list[MethodOptions]:
        """Return one configuration for each of several methods and budgets (`dart,random`, `192,128,64`).

        The method `none` has no budget and comes once. `all` stands for every method, with presets for those that have
        them.

        Raises:
            ConfigurationError: a budget in the list is no number.
        """
        keeps = _split(self.keep) if isinstance(self.keep, str) else [self.keep]
        wrong = [keep for keep in keeps if isinstance(keep, str)]
        if wrong or not keeps:
            raise ConfigurationError(
                f"--keep {self.keep!r} is not a number or numbers with commas: type for example --keep 192,128,64."
            )
        presets = [None] if self.preset is None else [part.strip() for part in self.preset.split(",") if part.strip()]
        budgets = [(keep, preset) for keep in keeps for preset in presets or [self.preset]]
        runs = []
        for name in _split(self.method):
            runs += [
                (one, None, None) if one == "none" else (one, keep, preset)
                for one in self._methods(name)
                for keep, preset in budgets
                if name != EVERY or one == "none" or preset is None or preset in _presets(one)
            ]
        return [replace(self, method=name, keep=keep, preset=preset) for name, keep, preset in dict.fromkeys(runs)]

    def notes(self, family: str = "llava") -> list[str]:
        """Return sentences for the screen: which of the released arguments counted, and which were ignored."""
        if not self._released:
            return []
        if self.method == "none":
            return ["Method none keeps every visual token: reduction ratio and token budget ignored."]
        return [self._released_budget(family).sentence]

    @property
    def label(self) -> str:
        """A short name for files and tables: the method and the budget it was asked for, e.g. `dart-128`."""
        name = self.method if self.method_file is None else Path(self.method_file.partition(":")[0]).stem
        given = (self.preset, self.keep, self.max_num_tokens, self.reduction_ratio)
        asked = next((x for x in given if x is not None), None)
        return name if asked is None or name == "none" else f"{name}-{asked}"

    @staticmethod
    def _methods(name: str) -> list[str]:
        from llava.reduction import registry

        return registry.names() if name == EVERY else [name]

    @property
    def _released(self) -> bool:
        return self.reduction_ratio is not None or self.max_num_tokens is not None

    def _range_problems(self) -> list[str]:
        problems = []
        ratio, count, keep = self.reduction_ratio, self.max_num_tokens, self.keep
        if ratio is not None and not 0 <= ratio < 1:
            problems.append(
                f"Reduction ratio {ratio} is outside [0, 1): give the fraction of visual tokens to remove, e.g. 0.778."
            )
        if count is not None and count < 1:
            problems.append(f"Token budget {count} is too small: give at least 1 visual token per image, e.g. 128.")
        if keep is not None and self._released:
            problems.append("Give either --keep or the released --reduction-ratio / --max-num-tokens, not both.")
        if self.preset is not None and (keep is not None or self._released):
            problems.append("Give either --preset or a budget (--keep, --reduction-ratio, --max-num-tokens), not both.")
        if isinstance(keep, str):
            problems.append(f"--keep {keep!r} is not usable: give one number, a count (128) or a fraction in (0, 1].")
        elif keep is not None and not (keep >= 1 if isinstance(keep, int) else 0 < keep <= 1):
            problems.append(f"--keep {keep} is not usable: give a count of at least 1 (128) or a fraction in (0, 1].")
        return problems

    def _named_options(self) -> tuple[dict[str, Any], list[str]]:
        options: dict[str, Any] = {} if self.layer is None else {"layer": self.layer}
        problems = []
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
                problems.append(f"--set {text!r} is not NAME=VALUE: type for example --set pivots_visual=8.")
            elif name.strip() in options:
                problems.append(f"Option {name.strip()!r} is given twice.")
            else:
                options[name.strip()] = _literal(value.strip())
        return options, problems

    def _released_budget(self, family: str) -> Any:
        from llava.reduction.released import released_budget

        return released_budget(family, self.reduction_ratio, self.max_num_tokens)

    def _budget(self, name: str, family: str) -> dict[str, Any]:
        if self.keep is not None:
            return {"keep": self.keep}
        if not self._released or name in ("none", "dart"):
            return {}
        return {"keep": self._released_budget(family).keep}

    def _create(self, registry: Any, name: str, family: str, options: dict[str, Any], budget: dict[str, Any]) -> Any:
        published = {} if self.preset is None or name == "none" else registry.preset(name, self.preset)
        method = registry.create(name, **{**published, **options, **budget})
        if name != "dart" or not self._released or self._range_problems():
            return method
        return type(method).from_released(family, self.reduction_ratio, self.max_num_tokens, **options)


def _split(text: str) -> list[Any]:
    """`192,0.5` -> [192, 0.5]; parts that are no numbers stay words."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [value if isinstance(value := _literal(part), (int, float)) else part for part in parts]


def _fields(registry: Any, name: str) -> set[str]:
    try:
        return {field.name for field in dataclasses.fields(registry.get(name))}
    except LlavaError:
        return set()


def _presets(name: str) -> set[str]:
    from llava.reduction import registry

    return set(registry.get(name).presets)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _sentences(error: LlavaError) -> list[str]:
    return list(error.problems) if isinstance(error, ConfigurationError) else [str(error)]
