"""MMBench's tables: the TSV with images inside, and the Excel file that its server takes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import BadData, BadInput
from llava.eval.benchmarks import files

LETTERS = "ABCD"
DROPPED = frozenset({"hint", "category", "source", "image", "comment", "l2-category"})
"""Columns of the TSV that the upload does not have."""
PREDICTION_PLACE = 6
LONGEST_REFERENCE = 16
"""An image cell this short and all digits is no image but the index of the row that holds it."""
LONGEST_CELL = 2**31 - 1
FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that an Excel file cannot hold."""

Line = dict[str, str]
"""One row of a table: column -> text; `index` is a whole number written out."""


def is_missing(value: object) -> bool:
    """Return whether LLaVA and the official code take a cell for empty (`nan` and `none` in any case do count)."""
    return value is None or value != value or str(value).strip().lower() in ("", "nan", "none")


def offered(line: Mapping[str, str]) -> dict[str, str]:
    """Return letter -> option text; reading stops at the first missing one."""
    options: dict[str, str] = {}
    for letter in LETTERS:
        if is_missing(line.get(letter)):
            break
        options[letter] = line[letter]
    return options


def read_table(path: Path, needed: Sequence[str]) -> list[Line]:
    """Return the rows of a TSV file; column names in lower case except the options' letters.

    Args:
        path: the file.
        needed: columns that have to be there; images, which are large, are kept only when they are among them.

    Raises:
        MissingData: the file is not there.
        BadData: not UTF-8, columns are absent, rows have too few or too many cells, or an index is no whole number.
    """
    csv.field_size_limit(LONGEST_CELL)  # images are longer than Python's default of 128 KiB
    files.require([path])
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            header = [name if name in LETTERS and name else name.lower() for name in next(reader, [])]
            return _lines(path, header, reader, needed)
    except csv.Error as error:
        raise BadData(f"{path} is not a tab-separated table: {error}.") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.") from error


def _lines(path: Path, header: list[str], reader: Any, needed: Sequence[str]) -> list[Line]:
    absent = [name for name in ("index", *needed) if name not in header]
    if absent:
        raise BadData(f"{path} lacks the columns {', '.join(absent)}; it has: {', '.join(header) or 'none'}.")
    lines: list[Line] = []
    problems = files.Problems(f"{path} has malformed rows")
    for number, cells in enumerate(reader, start=1):
        if not cells:
            continue
        line = dict(zip(header, cells, strict=False))
        if len(cells) != len(header):
            problems.add(f"row {number}: {len(cells)} cells instead of {len(header)} (is the file cut off?)")
        elif not line["index"].strip().isdigit():
            problems.add(f"row {number}: index {line['index']!r} is not a whole number")
        else:
            if "image" not in needed:
                line.pop("image", None)
            lines.append(line)
    problems.raise_if_any()
    if not lines:
        raise BadData(f"{path} has no rows.")
    return lines


def image_of(line: Line, by_index: Mapping[str, Line], path: Path) -> str:
    """Return the base64 text of a row's image; a short number names the row that has it.

    Raises:
        BadData: there is no such row, or rows name each other.
    """
    seen: set[str] = set()
    while (text := line["image"].strip()).isdigit() and len(text) <= LONGEST_REFERENCE:
        if text in seen or text not in by_index:
            raise BadData(f"{path}: row {line['index']} names row {text} for its image, which has none.")
        seen.add(text)
        line = by_index[text]
    return text


def upload_columns(line: Line) -> list[str]:
    """Return the columns of the upload for a table with the columns of `line`, in order."""
    kept = [name for name in line if name not in DROPPED]
    return [*kept[:PREDICTION_PLACE], "prediction", *kept[PREDICTION_PLACE:]]


def cell_text(text: str) -> str:
    """Return a text as an Excel cell keeps it: without control characters, lines ended by a line feed."""
    return FORBIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def write_upload(path: Path, lines: Sequence[Line], predictions: Mapping[str, str]) -> Path:
    """Write the Excel file: every row of the table with its prediction, everything but the index as text."""
    openpyxl = _openpyxl()
    from openpyxl.cell import WriteOnlyCell

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    columns = upload_columns(lines[0])
    sheet.append(columns)
    for line in lines:
        cells: list[Any] = [int(line["index"])]
        for name in columns[1:]:
            text = cell_text(predictions[line["index"]] if name == "prediction" else line[name])
            cell = WriteOnlyCell(sheet, text or None)
            if text:
                cell.data_type = "s"  # an answer that starts with "=" is no formula
            cells.append(cell)
        sheet.append(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def read_upload(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return (columns, rows) of the first sheet of an Excel file; empty cells are None.

    Raises:
        MissingData: the file is not there.
        BadData: it is not an Excel file.
    """
    openpyxl = _openpyxl()
    files.require([path])
    try:
        book = openpyxl.load_workbook(path, read_only=True)
        table = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except Exception as error:  # openpyxl lets errors of zip, XML and its own pass
        raise BadData(f"{path} is not an Excel file (.xlsx): {error}.") from error
    header = [str(name) for name in table[0]] if table else []
    return header, [dict(zip(header, cells, strict=True)) for cells in table[1:]]


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise BadInput("Excel files need openpyxl: pip install 'llava-dart[eval]'.") from error
    return openpyxl
