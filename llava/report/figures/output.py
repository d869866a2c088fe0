"""A figure's files: PNG and SVG, and the plotted numbers as CSV, JSON and a Markdown page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.report import summary
from llava.report.figures import style

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawn:
    """A figure ready to be written.

    Args:
        picture: the matplotlib figure.
        title: one line that says what is seen.
        rows: the plotted numbers; all rows have the same columns.
        notes: sentences below the table: what was measured, what is missing, where it departs from the paper.
        facts: anything else for the JSON.
        palette: whether it shows pictures, so that the PNG had better have few colours.
    """

    picture: Any
    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    palette: bool = False


def write(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """Write `name`.png, .svg, .csv, .json and .md into a folder; returns the paths."""
    paths = style.save(drawn.picture, folder / name, drawn.palette)
    texts = {"csv": _csv(drawn.rows), "json": _json(drawn, name), "md": markdown(drawn, name)}
    for ending, text in texts.items():
        path = folder / f"{name}.{ending}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def markdown(drawn: Drawn, name: str) -> str:
    """The page of a figure: title, picture, notes, plotted numbers."""
    parts = [f"# {drawn.title}", f"![{drawn.title}]({name}.png)"]
    if drawn.notes:
        parts.append("\n".join(f"- {note}" for note in drawn.notes))
    if drawn.rows:
        header = list(drawn.rows[0])
        words = sum(all(isinstance(row[column], str) for row in drawn.rows) for column in header)
        ordered = sorted(header, key=lambda column: not all(isinstance(row[column], str) for row in drawn.rows))
        cells = [[_shown(row[column]) for column in ordered] for row in drawn.rows]
        parts.append(summary.markdown([column.replace("_", " ") for column in ordered], cells, words))
    return "\n\n".join(parts) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(list(rows[0]) if rows else ["nothing plotted"])
    writer.writerows([["" if _absent(value) else value for value in row.values()] for row in rows])
    return text.getvalue()


def _json(drawn: Drawn, name: str) -> str:
    rows = [{key: None if _absent(value) else value for key, value in row.items()} for row in drawn.rows]
    content = {"figure": name, "title": drawn.title, "notes": list(drawn.notes), **drawn.facts, "rows": rows}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _shown(value: Any) -> str:
    if _absent(value):
        return "-"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:.2f}"
    return str(value).replace("|", "\\|")


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
