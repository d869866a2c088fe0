"""One table of all runs: a row for each method and budget, a column for each benchmark, the budget three ways."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.commandline import say
from llava.errors import BadInput
from llava.eval.screen import DASH, number
from llava.report.records import Record, check_alike

NONE = "none"


def table(
    records: Sequence[Record], times: bool = True, against: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; the unpruned run comes first, then budgets from large to small, best method first.

    `asked` is the budget or preset as it was typed; what was kept is the mean over the benchmarks. `relative` is the
    mean over the benchmarks of the score relative to the unpruned one (the average of the paper's Table 1). Times are
    ratios of the medians of seconds per question, of runs one after the other on one machine; `times=False` leaves them
    out, for runs that shared a machine. `against` names a method: every other one shows beside its scores by how much
    they differ from that method's at the same budget, in the score's own unit.

    Raises:
        ConfigurationError: the runs do not belong into one table.
    """
    check_alike(records)
    benchmarks = list(dict.fromkeys(r["benchmark"] for r in records))
    titles = {r["benchmark"]: " ".join(dict.fromkeys((r["title"], r["headline"]["name"].upper()))) for r in records}
    runs = {(r["method"]["label"], r["benchmark"]): r for r in records}
    labels = list(dict.fromkeys(r["method"]["label"] for r in records))
    header = ["method", "asked", "kept", "mean/layer", "cache", "FLOPs"]
    header += [*(titles[name] for name in benchmarks), "relative", "speed-up"]
    ranked = []
    for label in labels:
        mine = {name: runs[label, name] for name in benchmarks if (label, name) in runs}
        counts = _means([run["accounting"] for run in mine.values()])
        pairs = [(run, runs.get((NONE, name))) for name, run in mine.items()]
        asked, relative = _asked(label, counts), _relative(pairs)
        rival = f"{against}-{asked:.0f}" if against and label != NONE else ""
        theirs = {name: runs[rival, name] for name in mine if (rival, name) in runs and rival != label}
        their_pairs = [(run, runs.get((NONE, name))) for name, run in theirs.items()]
        their_relative = _relative(their_pairs) if len(theirs) == len(mine) else None
        row = [
            next(iter(mine.values()))["method"]["name"],
            number(asked, 0),
            f"{counts['final']:.0f} of {counts['visual']:.0f}",
            number(counts["mean_over_layers"], 1),
            _percent(counts["cache_bytes"], counts["cache_bytes_unpruned"]),
            _percent(counts["flops_exact"], counts["flops_exact_unpruned"]),
            *(_score(mine.get(name), theirs.get(name)) for name in benchmarks),
            DASH if relative is None else f"{100 * relative:.1f} %{_difference(relative, their_relative, 100, 1)}",
            _speed(pairs),
        ]
        row = row if times else row[:-1]
        ranked.append(((label != NONE, -asked, -(relative or 0), label), row))
    return header if times else header[:-1], [row for _, row in sorted(ranked)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a Markdown table whose first `words` columns are words and the others numbers."""
    ruler = ["---" if n < words else "---:" for n in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))


def replaced(page: str, name: str, text: str, mark: str = "summary") -> str:
    """Return the page with `text` between its lines `<!-- MARK -->` and `<!-- end of MARK -->`.

    Raises:
        BadInput: the page `name` does not have both lines once, in order.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise BadInput(f"{name} does not have the lines {begin} and {end}, once each: put them where the table goes.")
    return page[: page.index(begin) + len(begin)] + f"\n{text}" + page[page.index(end) :]


def update(path: Path, text: str, mark: str) -> None:
    """Put `text` into a page between the lines of a mark, and say so.

    Raises:
        BadInput: the page does not have both lines once, in order.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(replaced(before, str(path), text, mark), encoding="utf-8")
    say(f"Updated: {path}")


def setting(records: Sequence[Record]) -> str:
    """Return one line: model, data, machine and versions of the runs."""
    first = records[0]
    questions = ", ".join(
        f"{r['title']} {r['samples']['scored']}" for r in {r["benchmark"]: r for r in records}.values()
    )
    return (
        f"{first['model']['name']}, {first['split']} data ({questions} questions), {first['device']}, "
        f"{first['dtype']}, {first['attention']} attention, torch {first['versions']['torch']}, "
        f"transformers {first['versions']['transformers']}"
    )


def _means(counts: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean over the benchmarks of every number that all of them have."""
    found = {name: [value for c in counts if isinstance(value := c.get(name), (int, float))] for name in counts[0]}
    return {name: statistics.mean(own) if len(own) == len(counts) else None for name, own in found.items()}


def _asked(label: str, counts: Mapping[str, float | None]) -> float:
    """The budget in the label of a run (`dart-128`), or the one its method was given by default."""
    typed = label.rpartition("-")[2]
    return int(typed) if typed.isdigit() else counts["asked"] or 0


def _score(run: Record | None, other: Record | None) -> str:
    """A score and, if there is a run to compare it with, the difference."""
    if run is None:
        return DASH
    value = run["headline"]["value"]
    return number(value) + _difference(value, other["headline"]["value"] if other else None)


def _difference(value: float | None, other: float | None, scale: float = 1, digits: int = 2) -> str:
    return "" if value is None or other is None else f" ({scale * (value - other):+.{digits}f})"


def _percent(part: float | None, whole: float | None) -> str:
    return DASH if part is None or not whole else f"{100 * part / whole:.0f} %"


def _relative(pairs: Sequence[tuple[Record, Record | None]]) -> float | None:
    """Mean of the scores relative to the unpruned ones."""
    shares = [run["headline"]["value"] / full["headline"]["value"] for run, full in pairs if full]
    return statistics.mean(shares) if len(shares) == len(pairs) else None


def _speed(pairs: Sequence[tuple[Record, Record | None]]) -> str:
    """Geometric mean over the benchmarks of the ratio of seconds per question."""
    ratios = [
        full["timings"]["total"]["median_s"] / run["timings"]["total"]["median_s"]
        for run, full in pairs
        if full and full["timings"] and run["timings"]
    ]
    return f"{statistics.geometric_mean(ratios):.2f}x" if ratios else DASH
