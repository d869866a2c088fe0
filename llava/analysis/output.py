"""An analysis as files: JSON with everything, a CSV per table, a Markdown page, pictures if matplotlib is there."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.commandline import say, warn
from llava.errors import ConfigurationError
from llava.eval import results
from llava.report import summary

FORMAT = 1
DIGITS = 6  # significant ones of numbers in files

Draw = Callable[[Any], Any]
"""From `matplotlib.pyplot` to a figure."""


@dataclass(frozen=True)
class Table:
    """Rows of plain values.

    Args:
        title: what it shows, one line.
        header: names of the columns, with units.
        rows: words and numbers; None where there is none.
        words: the first columns are words.
        name: ending of its CSV file's name; empty for the main table.
        digits: behind the point, on the page.
        on_page: whether page and screen show it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    words: int = 1
    name: str = ""
    digits: int = 3
    on_page: bool = True


@dataclass(frozen=True)
class Finding:
    """What an analysis found.

    Args:
        name: of the analysis and its files.
        title: of the page.
        settings: options it ran with.
        samples: images looked at.
        tables: the main one first.
        notes: sentences above the tables: how to read them.
        facts: anything else for the JSON.
        draw: makes the picture; None: there is none.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    samples: int
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    draw: Draw | None = None

    @property
    def shown_tables(self) -> list[Table]:
        """The tables for people."""
        return [table for table in self.tables if table.on_page]


def write(finding: Finding, record: Mapping[str, Any], line: str, folder: Path) -> list[Path]:
    """Write all files of an analysis and return their paths; without matplotlib there is no picture, and a sentence.

    Args:
        record: model, machine and versions, for the JSON.
        line: the same for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _picture(finding, folder)
    paths = [folder / f"{finding.name}.json", folder / f"{finding.name}.md"]
    results.write(paths[0], rounded(content(finding, record)))
    paths[1].write_text(page(finding, line, bool(drawn)), encoding="utf-8")
    for table in finding.tables:
        path = folder / f"{'_'.join(filter(None, (finding.name, table.name)))}.csv"
        path.write_text(_csv(table), encoding="utf-8")
        paths.append(path)
    return paths + drawn


def content(finding: Finding, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the JSON file."""
    main, *others = finding.tables
    return {
        "analysis": finding.name,
        "format": FORMAT,
        "title": finding.title,
        "settings": dict(finding.settings),
        **record,
        "samples": finding.samples,
        "notes": list(finding.notes),
        "header": list(main.header),
        "rows": [list(row) for row in main.rows],
        **{table.name: {"header": list(table.header), "rows": [list(row) for row in table.rows]} for table in others},
        **finding.facts,
    }


def page(finding: Finding, line: str, with_picture: bool) -> str:
    """Return the Markdown page."""
    parts = [f"<!-- Made by `python -m llava.analysis {finding.name}`. -->\n# {finding.title}"]
    parts.append(f"{finding.samples} images; {line}.")
    parts += ["\n".join(f"- {note}" for note in finding.notes)] if finding.notes else []
    parts += [f"![{finding.title}]({finding.name}.png)"] if with_picture else []
    for table in finding.shown_tables:
        cells = [[shown(value, table.digits) for value in row] for row in table.rows]
        parts += [f"## {table.title}", summary.markdown(list(table.header), cells, table.words)]
    return "\n\n".join(parts) + "\n"


def screen(finding: Finding) -> None:
    """Show the tables."""
    from llava.eval.screen import table as lines

    for table in finding.shown_tables:
        say(f"\n{table.title}")
        for text in lines(list(table.header), [[shown(v, table.digits) for v in row] for row in table.rows]):
            say(text)
    say()


def shown(value: Any, digits: int = 3) -> str:
    """Return a value as people read it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Return plain JSON with numbers of six significant digits; what is no number becomes null."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def _csv(table: Table) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([["" if value is None else value for value in rounded(list(row))] for row in table.rows])
    return text.getvalue()


def _picture(finding: Finding, folder: Path) -> list[Path]:
    if finding.draw is None:
        return []
    from llava.report.figures import style

    try:
        with style.drawing() as pyplot:
            return style.save(finding.draw(pyplot), folder / finding.name)
    except ConfigurationError as error:
        warn(f"No picture is drawn. {error}")
        return []
