"""A page per method: idea, kept tokens, options, how it selects, measurements, differences, when not to use it.

Everything is read from the methods' classes and modules and from results files; the same input gives the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from llava import methods
from llava.reduction import registry
from llava.reduction.base import LLMStage, Reduction
from llava.reduction.checks import options_of
from llava.report import docstrings, summary
from llava.report.docstrings import AVOID, DIFFERENCES, SELECTS, SOURCE
from llava.report.records import Record

PACKAGE = "llava"
COMMAND = "python -m llava.report methods"
BUDGETS = ("192", "128", "64")
BENCHMARKS = "pope mme textvqa"
EXAMPLE, DIGITS = "128", 8
QUESTION = "What is written on the sign?"
EMBEDDED = "llava"
"""Family of the embedded model."""


@dataclass(frozen=True)
class Place:
    """Where pages, pictures and results are; links go from page to file.

    Args:
        pages: folder of the pages.
        pictures: folder of their pictures, NAME.png.
        results: folder of the results they show.
        root: of the repository, for links to source files.
    """

    pages: Path
    pictures: Path
    results: Path
    root: Path = Path()

    @property
    def results_name(self) -> str:
        """The folder of results as one would type it in the root."""
        return Path(os.path.relpath(self.results, self.root)).as_posix()

    def link(self, target: Path) -> str:
        """Relative path from a page to a file."""
        return Path(os.path.relpath(target, self.pages)).as_posix()


def names() -> list[str]:
    """The methods of this package, sorted; those of a user's file have no page."""
    return [name for name in registry.names() if registry.get(name).__module__.startswith(f"{PACKAGE}.")]


def index(place: Place) -> str:
    """The table of all methods, README.md of the folder."""
    rows = []
    for name in names():
        cls = registry.get(name)
        rows.append([f"[{name}]({name}.md)", docstrings.idea(cls).rstrip("."), cls.stage, _paper(cls.paper)])
    table = _table(["name", "idea", "where it cuts", "paper"], rows)
    return "\n\n".join(
        [
            f"<!-- Made by `{COMMAND}`. -->\n# Methods",
            "A page for every method: the tokens it keeps of an image, its options, how it selects, its scores with "
            "the embedded model, how it differs from the official code, and when not to use it.",
            table,
            f"`python -m llava.methods` prints options and presets on the screen; `{COMMAND}` makes these pages from "
            f"the classes and the results in `{place.results_name}`.\n",
        ]
    )


def page(name: str, records: Sequence[Record], place: Place) -> str:
    """The page of one method in Markdown.

    Args:
        records: results of all methods; none at all leaves the measurements out.
        place: where things are.
    """
    cls = registry.get(name)
    told = docstrings.paragraphs(cls)
    source = place.root / (cls.__module__.replace(".", "/") + ".py")
    facts = [
        ["where it cuts", methods.stage_of(cls) + _counted(cls)],
        ["needs", ", ".join(methods.needs_of(cls)) or "nothing but the tokens"],
        ["model families", methods.families_of(cls)],
        ["paper", _paper(cls.paper) or "none"],
        ["code", f"[{source.relative_to(place.root).as_posix()}]({place.link(source)}), `{cls.__name__}`"],
    ]
    own = docstrings.class_doc(cls)[1]
    parts = [
        f"<!-- Made by `{COMMAND}` from {source.name}: edit that file, not this one. -->\n# {name}",
        docstrings.idea(cls),
        _table(["", ""], facts),
        _example(name, cls),
        "## Kept tokens\n\n" + _picture(name, cls, place),
        "## Options\n\n" + _options(cls),
        "## How it selects\n\n" + "\n\n".join(filter(None, [told.get(SELECTS, ""), own, _source(told)])),
        "## Measured\n\n" + _measured(name, cls, records, place),
        "## Differences from the official code\n\n" + told.get(DIFFERENCES, ""),
        "## When not to use it\n\n" + told.get(AVOID, ""),
    ]
    return "\n\n".join(parts) + "\n"


def settings(name: str, records: Sequence[Record]) -> dict[str, Reduction]:
    """Budget -> method as it was measured, or with the preset of that name, for the pictures; largest budget first."""
    measured = _measured_options(name, records)
    cls, found = registry.get(name), {}
    for budget in BUDGETS:
        if budget in measured:
            found[budget] = registry.create(name, **measured[budget])
        elif budget in cls.presets:
            found[budget] = cls.preset(budget)
    return found


def drawable(cls: type[Reduction]) -> bool:
    """Whether the embedded model can run the method, so that there is something to draw and to measure."""
    return EMBEDDED in re.findall(r"\w+", methods.families_of(cls))


def _counted(cls: type[Reduction]) -> str:
    """How to read the numbers of layers."""
    if not cls().layers:
        return ""
    designed = getattr(cls, "designed_for", None)
    return " (counted from 0" + (f"; in models of fewer than {designed} at the same depths)" if designed else ")")


def _example(name: str, cls: type[Reduction]) -> str:
    """A command that uses the method."""
    presets = [preset for preset in (EXAMPLE, *cls.presets) if preset in cls.presets]
    words = f"python -m llava.eval pope --method {name}" + (f" --preset {presets[0]}" if presets else "")
    return f"```bash\n{words}{'' if drawable(cls) else ' --model-path CHECKPOINT'}\n```"


def _picture(name: str, cls: type[Reduction], place: Place) -> str:
    picture = place.pictures / f"{name}.png"
    if not drawable(cls):
        return f"There is no picture: {_unable()}"
    if not picture.is_file():
        return f"There is no picture yet: `{COMMAND} --only {name}` draws it."
    shown = f'![What {name} keeps of an image, and the model\'s answers]({place.link(picture)} "{QUESTION}")'
    if not cls.presets:
        return f"{shown}\n\nEvery patch keeps its token. Below the picture is the answer of the embedded model."
    if getattr(cls, "resizes", False):
        drawn = "The picture as the vision tower gets it."
    else:
        drawn = (
            "Patches that are not faded have a token in the last layer; a token that several were merged into is shown "
            "at the patch it mainly comes from, if it has one."
        )
    return (
        f"{shown}\n\n{drawn} Above each is the preset and how many visual tokens the last layer sees (with several "
        "cuts also the mean over the layers), below it the answer of the embedded model."
    )


def _unable() -> str:
    return "the embedded model is a LLaVA-1.5, which this method does not work on."


def _options(cls: type[Reduction]) -> str:
    meanings = docstrings.options(cls)
    rows = [[f"`{field.name}`", _code(field.default), meanings[field.name]] for field in options_of(cls)]
    if not rows:
        return "It has none."
    presets = [[f"`{name}`", _assignments(given) or "the defaults"] for name, given in cls.presets.items()]
    text = _table(["option", "default", "meaning"], rows)
    return text + ("\n\n" + _table(["preset", "options"], presets) if presets else "")


def _source(told: Mapping[str, str]) -> str:
    return f"Source: {told[SOURCE][0].lower() + told[SOURCE][1:]}" if SOURCE in told else ""


def _measured(name: str, cls: type[Reduction], records: Sequence[Record], place: Place) -> str:
    if not drawable(cls):
        return f"Nothing: {_unable()}"
    control = "random" if issubclass(cls, LLMStage) else "uniform"
    together = list(dict.fromkeys(("none", name, control))) if cls.presets else [name]
    preset = " --preset " + ",".join(budget for budget in BUDGETS if budget in cls.presets) if cls.presets else ""
    words = f"python -m llava.eval {BENCHMARKS} --method {','.join(together)}{preset} --output {place.results_name}"
    command = f"```bash\n{words}\n```"
    own = [record for record in records if record["method"]["name"] == name]
    if not own:
        return f"Not yet; make results with\n\n{command}"
    chosen = [record for record in records if record["method"]["name"] in together]
    table = summary.markdown(*summary.table(chosen, times=False))
    lines = [table, f"{summary.setting(own)}; results in [{place.results.name}]({place.link(place.results)})."]
    changed = _changed(cls, _measured_options(name, records))
    if changed:
        lines.append(f"Measured with {changed}, unlike the presets.")
    lines.append(
        "`asked` is the budget, `kept` what the last layer sees, `mean/layer` the visual tokens a layer sees on "
        f"average, `relative` the mean score relative to the unpruned model. Made with\n\n{command}"
    )
    return "\n\n".join(lines)


def _measured_options(name: str, records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Budget as it was typed -> options of the run."""
    own = [record["method"] for record in records if record["method"]["name"] == name]
    return {method["label"].rpartition("-")[2]: method["options"] for method in own}


def _changed(cls: type[Reduction], measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Options of measured runs that are not those of the preset of the same name."""
    found: dict[str, Any] = {}
    for budget, given in measured.items():
        usual = (
            cls.preset(budget) if budget in cls.presets else cls(**({"keep": int(budget)} if budget.isdigit() else {}))
        )
        for field in fields(usual):
            value = getattr(usual, field.name)
            if field.name in given and given[field.name] != (list(value) if isinstance(value, tuple) else value):
                found[field.name] = given[field.name]
    return _assignments(found)


def _assignments(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={_number(value)}`" for name, value in options.items())


def _code(value: Any) -> str:
    return f"`{_number(value)}`"


def _number(value: Any) -> str:
    """A value as one would type it; 1/9 instead of all its digits."""
    if isinstance(value, float) and len(repr(value)) > DIGITS:
        return str(Fraction(value).limit_denominator(1000))
    return repr(value)


def _paper(paper: str) -> str:
    """The paper, linked if it is on arXiv."""
    number = re.fullmatch(r"arXiv:([\d.]+)", paper)
    return f"[{paper}](https://arxiv.org/abs/{number[1]})" if number else paper


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return summary.markdown(header, lines, words=len(header))
