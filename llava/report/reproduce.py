"""`python -m llava.report table N | figure N | claims | all`: the paper's tables and figures from results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from llava.commandline import BAD_INPUT, DONE, did_you_mean, say, warn
from llava.errors import LlavaError
from llava.report.cells import Source

if TYPE_CHECKING:
    from llava.report.artefacts import Artefact

MORE = "random,pooling,smaller_image,divprune"


@dataclass(frozen=True)
class Common:
    """What all of these commands take."""

    source: Source = field(default_factory=Source)
    more: str = MORE
    """Methods besides the paper's that get lines in the tables, separated by commas; '' for none."""
    output: Path = Path("results") / "paper"
    """Folder for Markdown, CSV, JSON and pictures."""

    @property
    def methods(self) -> list[str]:
        return [part.strip() for part in self.more.split(",") if part.strip()]

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before anything is read."""
        from llava.reduction import registry

        known = registry.names()
        return self.source.problems() + [
            f"--more: unknown method {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."
            for name in self.methods
            if name not in known
        ]


@dataclass(frozen=True)
class Table(Common):
    """One of the paper's tables: its numbers beside what was measured here."""

    number: tyro.conf.Positional[str] = ""
    """1 to 6."""
    update: Path | None = None
    """Markdown file whose lines between `<!-- tableN -->` and `<!-- end of tableN -->` become this table."""

    def problems(self) -> list[str]:
        from llava.report import paper

        return super().problems() + _number_problems("table", self.number, paper.NUMBERS)


@dataclass(frozen=True)
class Figure(Common):
    """One of the paper's figures, drawn from what was measured here."""

    number: tyro.conf.Positional[str] = ""
    """1 to 8, or `budget`."""

    def problems(self) -> list[str]:
        return super().problems() + _number_problems("figure", self.number, list(_figures()))


@dataclass(frozen=True)
class Claims(Common):
    """The paper's claims, and whether they hold in the results that are there."""

    update: Path | None = None
    """Markdown file whose lines between `<!-- claims -->` and `<!-- end of claims -->` become the claims."""


@dataclass(frozen=True)
class All(Common):
    """All tables and figures, and the claims."""


@dataclass(frozen=True)
class Pack:
    """Put all results of a folder into one file, to be kept or sent; it is read like the folder."""

    results: tyro.conf.Positional[Path]
    """Folder with results JSON files."""
    output: tyro.conf.Positional[Path]
    """JSON file to write."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before anything is read."""
        found = [] if self.output.suffix == ".json" else [f"{self.output}: give a name that ends in .json."]
        if self.output.resolve().is_relative_to(self.results.resolve()):
            found.append(f"{self.output} lies in {self.results}, where its results would count twice: choose another.")
        return found


def pack(config: Pack) -> None:
    """Write the results of a folder as one file."""
    from llava.report import records

    text = records.packed(config.results)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(text, encoding="utf-8")
    say(f"Written: {config.output}, {text.count(chr(10)) - 2} results")


def table(config: Table) -> None:
    """Make one table and show it."""
    name = f"table{config.number}"
    _make_one(config, next(known for known in _known(config) if known.name == name), config.update)


def figure(config: Figure) -> None:
    """Make one figure."""
    _make_one(config, _figures()[config.number])


def claims(config: Claims) -> None:
    """Say which of the paper's claims hold."""
    from llava.report.claims import Claims as Judged

    _make_one(config, Judged(), config.update)


def everything(config: All) -> int:
    """Make whatever can be made; return the exit code."""
    from llava.report import runs
    from llava.report.store import Store

    store, known = Store(config.source), _known(config)
    cells = [cell for artefact in known for cell in artefact.cells(store.target)]
    if config.source.dry_run:
        _show(runs.told(store, runs.plan(store, cells)))
        return DONE
    if config.source.run:
        _show(runs.complete(store, cells, warn, sys.stderr.isatty()))
    failed = []
    for artefact in known:
        try:
            paths = artefact.make(store, config.output)
        except LlavaError as error:
            failed.append(f"{artefact.name}: {error}")
            continue
        say(f"{artefact.title}: {', '.join(str(path) for path in paths)}")
    for sentence in failed:
        warn(sentence)
    return BAD_INPUT if failed else DONE


def _known(config: Common) -> list[Artefact]:
    from llava.report import artefacts

    return artefacts.everything(config.methods)


def _figures() -> dict[str, Artefact]:
    """Number (or name) -> figure."""
    from llava.report.figures import ARTEFACTS

    return {figure.name.removeprefix("figure"): figure for figure in ARTEFACTS}


def _make_one(config: Common, artefact: Artefact, update: Path | None = None) -> None:
    from llava.report import artefacts, runs
    from llava.report.store import Store
    from llava.report.summary import replaced

    store = Store(config.source)
    cells = artefact.cells(store.target)
    if config.source.dry_run:
        _show(runs.told(store, runs.plan(store, cells)))
        return
    if config.source.run:
        _show(runs.complete(store, cells, warn, sys.stderr.isatty()))
    paths = artefact.make(store, config.output)
    for path in paths:
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            say(text)
            if update is not None:
                page = update.read_text(encoding="utf-8") if update.is_file() else ""
                short = artefacts.without_notes(text)
                update.write_text(replaced(page, str(update), f"{short}\n", artefact.name), encoding="utf-8")
                say(f"Updated: {update}")
    say(f"Written: {', '.join(map(str, paths))}")


def _show(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def _number_problems(kind: str, number: str, known: Sequence[str]) -> list[str]:
    if number in known:
        return []
    given = f"The paper has no {kind} {number}" if number else f"No {kind} is named"
    return [f"{given}: give one of {', '.join(known)}, e.g. python -m llava.report {kind} {known[0]}."]
