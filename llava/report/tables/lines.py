"""The lines of a score table: what the paper prints beside what was measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llava.report import paper
from llava.report.budgets import Budget, budget, options, works_on
from llava.report.cells import Cell, Target
from llava.report.paper import UPPER_BOUND, Average, PaperRow
from llava.report.store import Record, Store, version_of

CONTROLS = {
    "random": "Random tokens",
    "uniform": "Every n-th token",
    "pooling": "Average pooling",
    "smaller_image": "Smaller image",
    "divprune": "DivPrune",
    "visionzip": "VisionZip",
    "fastervlm": "FasterVLM",
}
"""Methods that the paper's tables do not have, and their labels."""
USUAL_PIVOT = "k_norm_max"
OTHER = "\u2020"
"""Marks lines with results of another version than the newest."""


@dataclass(frozen=True)
class Line:
    """One method at one setting.

    Args:
        model: the paper's model of the block.
        setting: the paper's setting of the block.
        method: our name of the method.
        label: as shown.
        paper: column -> printed score; empty where the paper has no such line.
        paper_average: its average, formed again, beside the printed one.
        cells: column -> the run that fills it; empty where this model does not fill the line.
        here: column -> its result.
        budget: what the results cost; None without results.
        average: the average of the results here.
        marked: whether some of the results are of another version.
        why_empty: why there is no run for the line, in words.
    """

    model: str
    setting: str
    method: str
    label: str
    paper: Mapping[str, float | None] = field(default_factory=dict)
    paper_average: Average | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    here: Mapping[str, Record] = field(default_factory=dict)
    budget: Budget | None = None
    average: Average | None = None
    marked: bool = False
    why_empty: str = ""

    @property
    def scores(self) -> dict[str, float | None]:
        """Column -> score measured here; None where only a server or a judge can give it."""
        return {column: record["headline"]["value"] for column, record in self.here.items()}

    @property
    def asked(self) -> float | None:
        """Tokens asked for: the preset's count where it has one, else what the accounting says."""
        preset = next((cell.options.preset for cell in self.cells.values()), None)
        if preset and preset.isdigit() and self.budget and int(preset) <= (self.budget.visual or 0):
            return int(preset)
        return self.budget.asked if self.budget else None


def lines(number: str, target: Target, more: Sequence[str] = ()) -> list[Line]:
    """Return the lines of Table 1, 3, 4 or 6 in the paper's order, with the runs that a model fills them with.

    A model fills the blocks of its own family. In a table without such a block it stands in for the first model.
    """
    table = paper.rows(number)
    filled = stand_in(number, target)
    found: list[Line] = []
    for position, row in enumerate(table):
        found.append(_line(number, row, table, target if row.model == filled else None))
        block_ends = position + 1 == len(table) or _block(table[position + 1]) != _block(row)
        if block_ends and row.model == filled and row.setting != UPPER_BOUND:
            printed = {other.ours for other in table if _block(other) == _block(row)}
            found += [_control(name, row, target) for name in more if name not in printed]
    return found


def stand_in(number: str, target: Target) -> str:
    """Return which of the paper's models a model's results are shown beside."""
    models = list(dict.fromkeys(row.model for row in paper.rows(number)))
    return next((model for model in models if paper.FAMILIES[model] == target.family), models[0])


def is_own(number: str, target: Target) -> bool:
    """Whether the model is of the family that the table is about, rather than standing in for it."""
    return paper.FAMILIES[stand_in(number, target)] == target.family and not target.embedded


def filled(found: Sequence[Line], store: Store) -> list[Line]:
    """Return the lines with their results, averages and marks.

    Raises:
        BadInput: results do not belong together.
    """
    results = store.records(cell for line in found for cell in line.cells.values())
    newest = max(results.values(), key=lambda record: record["finished"], default=None)
    base = version_of(newest) if newest else {}
    done: list[Line] = []
    vanilla: dict[str, dict[str, float | None]] = {}
    for line in found:
        here = {column: results[cell] for column, cell in line.cells.items() if cell in results}
        line = replace(line, here=here)
        if here:
            if line.method == "none":
                vanilla[line.model] = line.scores
            value, count = paper.relative(line.scores, vanilla.get(line.model, {}))
            line = replace(
                line,
                budget=budget(list(here.values()), f"{line.label}, {line.setting}"),
                average=Average(value, count),
                marked=any(version_of(record) != base for record in here.values()),
            )
        done.append(line)
    return done


def _line(number: str, row: PaperRow, table: Sequence[PaperRow], target: Target | None) -> Line:
    label = row.label if row.pivot is None else f"{row.label}, {_pivot(row.pivot)}"
    label += f" ({row.venue})" if row.venue else ""
    line = Line(row.model, row.setting, row.ours, label, row.metrics, paper.average(row, table))
    if target is None:
        return line
    more = {} if row.pivot in (None, USUAL_PIVOT) else {"set": (f"criterion={row.pivot}",)}
    if not works_on(row.ours, target):
        return replace(line, why_empty=f"does not work on {target.family} models")
    return replace(line, cells=_cells(row.metrics, row.ours, row.removed, target, **more))


def _control(name: str, row: PaperRow, target: Target) -> Line:
    line = Line(row.model, row.setting, name, CONTROLS.get(name, name))
    if not works_on(name, target):
        return replace(line, why_empty=f"does not work on {target.family} models")
    return replace(line, cells=_cells(row.metrics, name, row.removed, target))


def _cells(
    columns: Iterable[str], method: str, removed: float, target: Target, **more: tuple[str, ...]
) -> dict[str, Cell]:
    given = options(method, removed, target, **more)
    return {column: Cell(target.benchmark(paper.COLUMNS[column][1]), given) for column in columns}


def _block(row: PaperRow) -> tuple[str, str]:
    return row.model, row.setting


def _pivot(criterion: str) -> str:
    what, _, end = criterion.rpartition("_")
    names = {"k_norm": "K-norm", "v_norm": "V-norm", "attention": "attention"}
    return f"{names[what]} {end}" if what in names else criterion
