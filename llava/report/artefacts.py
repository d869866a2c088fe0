"""What `table`, `figure`, `claims` and `all` have in common: things that need results and write files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llava.report.cells import Cell, Target
from llava.report.runs import command_for
from llava.report.store import Store


class Artefact(Protocol):
    """One table or figure."""

    @property
    def name(self) -> str:
        """`table1`, `figure4`, `claims`: also the name of its files."""

    @property
    def title(self) -> str:
        """What it shows, in a line."""

    def cells(self, target: Target) -> list[Cell]:
        """Return the results it is made from."""

    def make(self, store: Store, output: Path) -> list[Path]:
        """Write its files into a folder and return their paths.

        Raises:
            BadData: none of its results are there; the message says what to type.
            BadInput: its results do not belong together.
        """


@dataclass(frozen=True)
class Sheet:
    """A table in three forms.

    Args:
        markdown: as it is read.
        header, rows: as it is calculated with; None is an empty cell.
        content: everything, for programs.
    """

    markdown: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    content: Mapping[str, Any]


def everything(more: Sequence[str] = ()) -> list[Artefact]:
    """Return all tables, all figures and the claims.

    Args:
        more: methods besides the paper's that get rows of their own.
    """
    from llava.report.claims import Claims
    from llava.report.figures import ARTEFACTS
    from llava.report.tables import tables

    return [*tables(more), *ARTEFACTS, Claims()]


def words_of(name: str) -> str:
    """Return the command that makes an artefact: `table1` -> `table 1`."""
    kind = name.rstrip("0123456789")
    return f"{kind} {name.removeprefix(kind)}".strip()


def missing_advice(store: Store, cells: Iterable[Cell], name: str) -> str | None:
    """Return the sentence that says what to type for results that are not there; None when all are."""
    missing = store.missing(cells)
    return command_for(missing, words_of(name), store) if missing else None


def command_of(store: Store, name: str) -> str:
    """Return the sentence that says how to make an artefact again from the results that are there."""
    return f"Made by `{' '.join(['python -m llava.report', words_of(name), store.source.flags]).strip()}`."


def page(title: str, body: str, notes: Sequence[str]) -> str:
    """Return a Markdown page: what the first note says stands above the body, since nobody should miss it."""
    first, *others = notes
    return "\n".join([f"# {title}", "", first, "", body, "", *(f"- {note}" for note in others), ""])


def without_notes(text: str) -> str:
    """Return a page without its title and without the notes below its table."""
    return text.partition("\n\n")[2].partition("\n\n- ")[0]


def write(sheet: Sheet, output: Path, name: str) -> list[Path]:
    """Write `<name>.md`, `.csv` and `.json` into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{name}.{ending}" for ending in ("md", "csv", "json")]
    paths[0].write_text(sheet.markdown, encoding="utf-8")
    with open(paths[1], "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([sheet.header, *sheet.rows])
    content = {"artefact": name, **sheet.content}
    paths[2].write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths
