"""Table 5: questions about videos at half of the visual tokens; accuracy and score of a judge, or the local metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llava.errors import BadData
from llava.eval.screen import DASH, number
from llava.report import artefacts, paper
from llava.report.artefacts import Sheet, page
from llava.report.budgets import Budget, budget, options, works_on
from llava.report.cells import Cell, Target
from llava.report.paper import Average
from llava.report.store import Record, Store
from llava.report.summary import markdown
from llava.report.tables.lines import CONTROLS
from llava.report.tables.notes import left_over, surroundings

NUMBER = "5"
MODEL = "Video-LLaVA-7B"
REMOVED = 0.5
LABELS = {
    "frozenbilm_1b": "FrozenBiLM-1B",
    "videochat_7b": "VideoChat-7B",
    "llama_adapter_7b": "LLaMA-Adapter-7B",
    "video_llama_7b": "Video-LLaMA-7B",
    "video_chatgpt_7b": "Video-ChatGPT-7B",
    "video_llava_7b": "Video-LLaVA-7B",
    "video_llava_7b+fastv": "Video-LLaVA-7B + FastV",
    "video_llava_7b+dart": "Video-LLaVA-7B + DART",
}
RUN = {"video_llava_7b": "none", "video_llava_7b+fastv": "fastv", "video_llava_7b+dart": "dart"}
"""Lines that a model here fills, and our methods."""
JUDGED, SCORE = "gpt_accuracy", "gpt_score"
Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class VideoLine:
    """One line: accuracy in percent and score from 0 to 5 of every set, and their plain means."""

    label: str
    source: str
    pairs: Mapping[str, Pair]
    averages: tuple[Average, Average]
    budget: Budget | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoTable:
    """Table 5.

    Args:
        more: methods besides the paper's.
    """

    more: Sequence[str] = ()
    name = f"table{NUMBER}"

    @property
    def title(self) -> str:
        return f"Table {NUMBER}: {paper.raw(NUMBER)['title']}"

    def by_label(self, target: Target) -> dict[str, dict[str, Cell]]:
        """Return label -> set -> run; nothing for a model that takes no videos."""
        if not target.takes_videos:
            return {}
        methods = {LABELS[name]: method for name, method in RUN.items()}
        methods |= {CONTROLS.get(name, name): name for name in self.more}
        return {
            label: {column: Cell(paper.COLUMNS[column][1], options(method, REMOVED, target)) for column in columns()}
            for label, method in methods.items()
            if works_on(method, target)
        }

    def cells(self, target: Target) -> list[Cell]:
        return [cell for by_set in self.by_label(target).values() for cell in by_set.values()]

    def make(self, store: Store, output: Path) -> list[Path]:
        wanted, found = self.by_label(store.target), store.records(self.cells(store.target))
        advice = artefacts.missing_advice(store, self.cells(store.target), self.name)
        if wanted and not found:
            raise BadData(f"No results for {self.title}. {advice}")
        measured = measured_lines(self, store)
        said = [*_notes(store, list(found.values()), measured), *([advice] if advice else [])]
        columns_of = {cell: column for by_set in wanted.values() for column, cell in by_set.items()}
        questions = {columns_of[cell]: record["samples"]["scored"] for cell, record in found.items()}
        sheet = _sheet(self.title, beside(measured), questions, said)
        return artefacts.write(sheet, output, self.name)


def measured_lines(table: VideoTable, store: Store) -> list[VideoLine]:
    """Return the lines that there are results of."""
    found = store.records(table.cells(store.target))
    here = {
        label: {column: found[cell] for column, cell in by_set.items() if cell in found}
        for label, by_set in table.by_label(store.target).items()
    }
    return [_measured(label, by_set, store) for label, by_set in here.items() if by_set]


def columns() -> list[str]:
    """Return the three sets in the paper's order."""
    return list(paper.raw(NUMBER)["columns"])


def paper_lines() -> list[VideoLine]:
    """Return the printed lines, their averages formed again."""
    lines = []
    for row in paper.raw(NUMBER)["rows"]:
        pairs = dict(zip(columns(), zip(row["accuracy"], row["score"], strict=True), strict=True))
        averages = tuple(paper.plain(row[kind], row["average"][n]) for n, kind in enumerate(("accuracy", "score")))
        lines.append(VideoLine(LABELS[row["method"]], "paper", pairs, (averages[0], averages[1])))
    return lines


def beside(measured: Sequence[VideoLine]) -> list[VideoLine]:
    """Return the printed lines, what was measured before the printed line of the same method, the others at the end."""
    rest = {line.label: line for line in measured}
    done: list[VideoLine] = []
    for line in paper_lines():
        mine = rest.pop(line.label, None)
        done += [replace(mine, label=mine.label.replace(MODEL, mine.source)), line] if mine else [line]
    return [*done, *rest.values()]


def judged(record: Record, store: Store) -> Mapping[str, Any] | None:
    """Return what a judge said of a run: `<results file>.judged.json`, written by `llava.eval judge --output`."""
    wanted = Path(str(record.get("results_file", ""))).stem + ".judged"
    return next((content for path, content in store.files("headline") if path.stem == wanted), None)


def _measured(label: str, by_set: Mapping[str, Record], store: Store) -> VideoLine:
    pairs: dict[str, Pair] = {}
    metrics: dict[str, str] = {}
    for column, record in by_set.items():
        metric = judged(record, store) or record
        score = next((one["value"] for one in metric["metrics"] if one["name"] == SCORE), None)
        pairs[column], metrics[column] = (metric["headline"]["value"], score), metric["headline"]["name"]
    alike = len(set(metrics.values())) == 1 and len(pairs) == len(columns())
    averages = [paper.plain([pair[n] for pair in pairs.values()], None) for n in (0, 1)]
    if not alike:  # a mean over two kinds of accuracy, or over some of the sets, would say nothing
        averages = [Average(None, 0), Average(None, 0)]
    cost = budget(list(by_set.values()), label)
    return VideoLine(label, store.target.name, pairs, (averages[0], averages[1]), cost, metrics)


def _notes(store: Store, found: Sequence[Record], measured: Sequence[VideoLine]) -> list[str]:
    target = store.target
    if not target.takes_videos:
        said = [f"{target.name} takes no videos: nothing was run, the table holds the paper's numbers only. {_how()}"]
    else:
        own = target.family == paper.FAMILIES[MODEL]
        said = [f"{target.name} was run." + ("" if own else f" {MODEL} was not run.")]
    names = sorted({name for line in measured for name in line.metrics.values()})
    if any(name != JUDGED for name in names):
        said.append(
            f"Accuracy here is {' and '.join(names)}. local_contains (the gold answer's words stand in the prediction) "
            "is not the accuracy of the paper, which a GPT judge gives, and has no score. For the judge: python -m "
            "llava.eval judge SET --answers-file RESULT.jsonl --endpoint URL --output RESULT.judged.json"
        )
    elif names:
        said.append("Accuracy and score here are a judge's; another judge than the paper's gives other numbers.")
    odd = [
        f"{line.label} ({kind} printed {average.printed}, recomputed {average.value:.2f})"
        for line in paper_lines()
        for kind, average in zip(("accuracy", "score"), line.averages, strict=True)
        if average.reproduced is False and average.value is not None
    ]
    said += [f"\u2260 Printed averages that do not follow from the printed numbers: {'; '.join(odd)}."] if odd else []
    return [*said, *surroundings(found), *left_over(store), artefacts.command_of(store, f"table{NUMBER}")]


def _how() -> str:
    return "A Video-LLaVA fills it: --model-path CHECKPOINT --run."


def _sheet(title: str, lines: Sequence[VideoLine], questions: Mapping[str, int], notes: Sequence[str]) -> Sheet:
    titles = [paper.COLUMNS[column][0] for column in columns()]
    header = ["method", "from", "asked", "kept", "mean/layer", "cache", "FLOPs"]
    header += [f"{title} {what}" for title in titles for what in ("accuracy", "score")]
    header += ["Avg. accuracy", "Avg. score", "printed"]
    counts = [text for column in columns() for text in (str(questions.get(column, DASH)), "")]
    rows = [["questions behind each cell", "", *[""] * 5, *counts, "", "", ""]] if questions else []
    rows += [_text(line) for line in lines]
    flat = [_numbers(line) for line in lines]
    text = page(title, markdown(header, rows, words=2), notes)
    names = ["label", "from", "asked", "kept", "mean_over_layers", "cache_percent", "flops_percent"]
    names += [f"{column}_{what}" for column in columns() for what in ("accuracy", "score")]
    names += ["average_accuracy", "average_score", "average_accuracy_printed", "average_score_printed"]
    content = {
        "title": title,
        "questions": dict(questions),
        "lines": [
            {**dict(zip(names, row, strict=True)), "metrics": dict(line.metrics)}
            for line, row in zip(lines, flat, strict=True)
        ],
        "notes": list(notes),
    }
    return Sheet(text, names, flat, content)


def _cost(line: VideoLine) -> list[float | None]:
    cost = line.budget
    if cost is None:
        return [None] * 5
    return [cost.asked, cost.kept, cost.mean_over_layers, cost.cache_percent, cost.flops_percent]


def _numbers(line: VideoLine) -> list[Any]:
    scores = [value for column in columns() for value in line.pairs.get(column, (None, None))]
    averages = [average.value for average in line.averages]
    return [line.label, line.source, *_cost(line), *scores, *averages, *(average.printed for average in line.averages)]


def _text(line: VideoLine) -> list[str]:
    scores = [number(value, 1) for column in columns() for value in line.pairs.get(column, (None, None))]
    averages = [number(average.value, 2) for average in line.averages]
    printed = [
        number(average.printed, 1) + (" \u2260" if average.reproduced is False else "")
        for average in line.averages
        if average.printed is not None
    ]
    asked, kept, mean, cache, flops = _cost(line)
    shares = ["" if share is None else f"{share:.0f} %" for share in (cache, flops)]
    cost = [number(asked, 0), number(kept, 0), number(mean, 1), *shares] if line.budget else [""] * 5
    return [line.label, line.source, *cost, *scores, *averages, " / ".join(printed)]
