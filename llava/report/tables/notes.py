"""The sentences below a table: what was run on what, what differs, what is missing, what the paper's numbers omit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llava.report import artefacts, paper
from llava.report.budgets import UNTRAINED
from llava.report.cells import Target
from llava.report.paper import UPPER_BOUND
from llava.report.store import Record, Store, version_of
from llava.report.tables.lines import OTHER, Line, is_own, stand_in
from llava.report.tables.writing import UNEQUAL

READING = (
    "`asked` is the budget, `kept` the visual tokens that the last layer sees, `mean/layer` what a layer sees on "
    "average; `cache` and `FLOPs` are shares of the unpruned prefill's (FLOPs with three feed-forward matrices, text "
    "included). `Avg.` is the mean over the benchmarks of 100 * score / unpruned score of the same model."
)


def notes(number: str, found: Sequence[Line], store: Store, name: str) -> list[str]:
    """Return the sentences below a score table."""
    results = [record for line in found for record in line.here.values()]
    said = [whose(number, store.target), *ranking(found), READING]
    said += grain(found) + surroundings(results)
    said += not_reproduced(found)
    said += short_averages(found)
    said += [
        f"{line.label}: run with `{UNTRAINED[line.method]}`, because the embedded model's last vision block was never "
        "trained (nothing else reads it)."
        for line in {line.method: line for line in found if line.here and line.method in UNTRAINED}.values()
        if store.target.embedded
    ]
    unable: dict[str, list[str]] = {}
    for line in found:
        if line.why_empty:
            unable.setdefault(line.why_empty, []).append(line.label)
    said += [f"{', '.join(dict.fromkeys(labels))}: {why}." for why, labels in unable.items()]
    said += left_over(store)
    advice = artefacts.missing_advice(store, [cell for line in found for cell in line.cells.values()], name)
    return [*said, artefacts.command_of(store, name), *([advice] if advice else [])]


def ranking(found: Sequence[Line]) -> list[str]:
    """Return who comes first at every setting, and where DART and random tokens come."""
    said = []
    for setting in dict.fromkeys(line.setting for line in found if line.setting != UPPER_BOUND):
        block = [line for line in found if line.setting == setting and line.average]
        count = max((line.average.count for line in block if line.average), default=0)
        kept = [
            (line.average.value, line)
            for line in block
            if line.average and line.average.value is not None and line.average.count == count
        ]
        order = sorted(kept, key=lambda pair: -pair[0])
        named = [
            f"{line.label} {value:.1f} ({_nth(place)})"
            for place, (value, line) in enumerate(order, start=1)
            if line.method in ("dart", "random")
        ]
        if len(order) > 1 and named:
            said.append(
                f"{setting.replace('_', ' ')}: of {len(order)} lines with results of {count} benchmarks, "
                f"{order[0][1].label} keeps the largest part of the unpruned score ({order[0][0]:.1f} %); "
                f"{', '.join(named)}."
            )
    return said


def grain(found: Sequence[Line]) -> list[str]:
    """Return how much one question weighs in the column with the fewest."""
    counts = [record["samples"]["scored"] for line in found for record in line.here.values()]
    if not counts:
        return []
    few = min(counts)
    return [
        f"The smallest column has {few} questions: there one answer is {100 / few:.1f} points of accuracy, so that "
        "small differences say nothing."
    ]


def _nth(place: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(place % 10 if place % 100 not in (11, 12, 13) else 0, "th")
    return f"{place}{ending}"


def whose(number: str, target: Target) -> str:
    """Return whose numbers the lines with results are, and which of the paper's models were not run."""
    models = list(dict.fromkeys(row.model for row in paper.rows(number)))
    beside = stand_in(number, target)
    if not is_own(number, target):
        several = len(models) > 1
        return (
            f"{' and '.join(models)}, the paper's model{'s' * several}, {'were' if several else 'was'} not run. "
            f"The lines of {target.name} stand beside {beside} to show the same experiment on another model; their "
            "scores are not comparable with the paper's, only what a method loses is."
        )
    idle = [model for model in models if model != beside]
    return f"{target.name} was run beside {beside}." + (f" Not run: {', '.join(idle)}." if idle else "")


def surroundings(results: Sequence[Record]) -> list[str]:
    """Return on what the results were made, and which were made with something else."""
    if not results:
        return []
    newest = max(results, key=lambda record: record["finished"])
    base = version_of(newest)
    said = [
        f"{newest['model']['name']} (weights {newest['model']['weights_digest']}), {_several(results, 'split')} data, "
        f"{_several(results, 'device')}, {newest['dtype']}, {newest['attention']} attention, greedy decoding, "
        + ", ".join(f"{name} {value}" for name, value in base.items())
        + "."
    ]
    others = {tuple(version_of(record).items()) for record in results} - {tuple(base.items())}
    for other in sorted(others):
        differing = [f"{name} {value}" for name, value in other if base.get(name) != value]
        count = sum(tuple(version_of(record).items()) == other for record in results)
        said.append(f"{OTHER} {count} results are of another version: {', '.join(differing) or 'less is known of it'}.")
    failed = sum(record["samples"].get("errors", 0) for record in results)
    if failed:
        said.append(f"{failed} questions could not be asked and count as empty answers.")
    if any(record["headline"]["value"] is None for record in results):
        said.append("`server`: only a server scores this split; --val asks the val splits instead, scored here.")
    return said


def not_reproduced(found: Sequence[Line]) -> list[str]:
    """Return which printed averages the printed scores do not give."""
    odd = [line for line in found if line.paper_average and line.paper_average.reproduced is False]
    if not odd:
        return ["Every average the paper prints here follows from its scores."]
    listed = "; ".join(
        f"{line.label}, {line.setting.replace('_', ' ')}: printed {line.paper_average.printed:.1f}, "
        f"recomputed {line.paper_average.value:.2f}"
        for line in odd
        if line.paper_average and line.paper_average.value is not None
    )
    total = sum(line.paper_average is not None for line in found)
    return [f"{UNEQUAL} {len(odd)} of the paper's {total} printed averages do not follow from its scores: {listed}."]


def short_averages(found: Iterable[Line]) -> list[str]:
    """Return which averages are over fewer benchmarks than the others."""
    partial = [
        f"{line.label}, {line.setting.replace('_', ' ')} (over {line.paper_average.count})"
        for line in found
        if line.paper_average and line.paper_average.count < len(line.paper)
    ]
    if not partial:
        return []
    return [f"The paper has no number in some columns of {', '.join(partial)}: not comparable with the others."]


def left_over(store: Store) -> list[str]:
    """Return what lies in the folders and is not used."""
    said = []
    if store.left_aside:
        said.append(f"{store.left_aside} results in the folders are of other models, weights or kernels: left aside.")
    said += [f"Not used: {problem}" for problem in store.unreadable]
    return said


def _several(results: Sequence[Record], name: str) -> str:
    return " and ".join(sorted({str(record[name]) for record in results}))
