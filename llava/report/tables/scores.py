"""Tables 1, 3, 4 and 6: scores of benchmarks, relative to the unpruned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import BadData
from llava.report import artefacts, paper
from llava.report.cells import Cell, Target
from llava.report.store import Store
from llava.report.tables import writing
from llava.report.tables.lines import Line, filled, lines
from llava.report.tables.notes import notes

PRINTED_DOWN = ("6",)
"""Tables that the paper prints with the benchmarks down."""


@dataclass(frozen=True)
class ScoreTable:
    """One of the paper's tables of scores.

    Args:
        number: of the table.
        more: methods besides the paper's that get lines of their own.
    """

    number: str
    more: Sequence[str] = ()

    @property
    def name(self) -> str:
        return f"table{self.number}"

    @property
    def title(self) -> str:
        return f"Table {self.number}: {paper.raw(self.number)['title']}"

    def lines(self, target: Target) -> list[Line]:
        """Return the lines without results."""
        return lines(self.number, target, self.more)

    def cells(self, target: Target) -> list[Cell]:
        return [cell for line in self.lines(target) for cell in line.cells.values()]

    def make(self, store: Store, output: Path) -> list[Path]:
        found = filled(self.lines(store.target), store)
        if not any(line.here for line in found):
            advice = artefacts.missing_advice(store, self.cells(store.target), self.name)
            raise BadData(f"No results for {self.title}. {advice}")
        said = notes(self.number, found, store, self.name)
        columns = paper.raw(self.number)["columns"]
        upright = self.number not in PRINTED_DOWN
        return artefacts.write(
            writing.sheet(self.title, found, columns, store.target, said, upright), output, self.name
        )
