"""Looks at what lies in a benchmark's folder and says what is complete, partial, wrong or missing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.catalogue import CATALOGUE, Item
from llava.errors import BadData
from llava.eval import data
from llava.eval.benchmarks import files, mmbench_table
from llava.eval.benchmarks.base import Benchmark

PRESENT, MISSING, WRONG, DIFFERENT = "present", "missing", "wrong", "different"
SUMS = "SHA256SUMS"
"""Sums of one's own files, in the format of `sha256sum`."""
BLOCK = 1 << 20


@dataclass(frozen=True)
class Found:
    """State of one item: present, missing, wrong (cannot be used) or different (not the official file), and why."""

    item: Item
    path: Path
    state: str
    detail: str = ""


def item_path(benchmark: Benchmark, root: Path, item: Item) -> Path:
    """Return where an item lies; the question file may have a second place (MMBench-CN)."""
    path = root / item.path
    return benchmark.question_path(root) if item.path == benchmark.question_file else path


def look(benchmark: Benchmark, root: Path, thorough: bool = False) -> list[Found]:
    """Return the state of every item of a benchmark's full set.

    Args:
        benchmark, root: whose set, and its folder.
        thorough: also read the files: row counts, sums, images of all questions.
    """
    found = []
    for item in CATALOGUE[benchmark.name].items:
        path = item_path(benchmark, root, item)
        if not path.exists() or (item.is_folder and not any(path.iterdir())):
            found.append(Found(item, path, MISSING))
        elif thorough:
            found.append(Found(item, path, *_examined(item, path)))
        else:
            found.append(Found(item, path, PRESENT))
    return found


def _examined(item: Item, path: Path) -> tuple[str, str]:
    if item.is_folder:
        count = sum(1 for file in path.rglob("*") if file.is_file())
        few = item.count is not None and count < item.count
        return (WRONG, f"{count} files instead of {item.count}") if few else (PRESENT, f"{count} files")
    try:
        rows = count_rows(path)
    except BadData as error:
        return WRONG, str(error).splitlines()[0]
    if item.sha256 and digest(path) == item.sha256:
        return PRESENT, f"{rows} rows, the official file"
    if item.rows is not None and rows != item.rows:
        return DIFFERENT, f"{rows} rows, the official file has {item.rows}"
    return (DIFFERENT, f"{rows} rows, but not the official file") if item.sha256 else (PRESENT, f"{rows} rows")


def count_rows(path: Path) -> int:
    """Return the rows of a question, label or annotation file.

    Raises:
        BadData: it is malformed.
    """
    if path.suffix == ".tsv":
        return len(mmbench_table.read_table(path, ()))
    text = files.read_text(path)
    if path.suffix == ".jsonl" or "\n{" in text.strip():
        rows, problems = files.parse_rows(text, path, {})
        problems.raise_if_any()
        return len(rows)
    try:
        content: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadData(f"not JSON: {error.msg.removesuffix(' at')} at line {error.lineno}") from error
    for name in ("data", "annotations", "questions"):
        if isinstance(content, dict) and isinstance(content.get(name), list):
            return len(content[name])
    return len(content) if isinstance(content, (list, dict)) else 1


def absent_images(benchmark: Benchmark, root: Path) -> list[str]:
    """Return every path that questions of the set name and that is not there.

    Raises:
        BadData: the question file is malformed.
    """
    dataset = data.DataSet(benchmark, root, "full")
    return data.missing(dataset, benchmark.questions(root))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def write_sums(benchmark: Benchmark, root: Path) -> Path:
    """Write the sums of the files of a set (folders left out) beside them, to be checked later or elsewhere."""
    present = [found.path for found in look(benchmark, root) if found.state == PRESENT and found.path.is_file()]
    lines = [f"{digest(path)}  {path.relative_to(root).as_posix()}\n" for path in present if path.is_relative_to(root)]
    path = root / f"{benchmark.name}.{SUMS}"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def check_sums(benchmark: Benchmark, root: Path) -> list[str]:
    """Return the files that differ from the sums written earlier; nothing when there are none."""
    path = root / f"{benchmark.name}.{SUMS}"
    if not path.exists():
        return []
    changed = []
    for line in files.read_text(path).splitlines():
        wanted, _, name = line.partition("  ")
        if name and (not (root / name).is_file() or digest(root / name) != wanted):
            changed.append(f"{root / name}: not the file that {path.name} was made from")
    return changed
