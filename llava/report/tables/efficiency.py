"""Table 2: what a run over POPE costs; measured by the runner, by `llava.bench`, and as the paper prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llava.errors import BadData
from llava.eval.screen import DASH, number
from llava.report import artefacts, paper
from llava.report.artefacts import Sheet, page
from llava.report.budgets import options, works_on
from llava.report.cells import Cell, Target
from llava.report.store import Record, Store
from llava.report.summary import markdown
from llava.report.tables.costs import (
    LABELS,
    NUMBER,
    Cost,
    bench_costs,
    cache_mb,
    formula_percent,
    paper_costs,
    printed,
    runner_costs,
)
from llava.report.tables.lines import CONTROLS, OTHER
from llava.report.tables.notes import left_over, surroundings

HEADER = (
    "method",
    "from",
    "tokens",
    "asked",
    "mean/layer",
    "total time",
    "prefill",
    "FLOPs (Eqs. 11-13)",
    "FLOPs (exact)",
    "cache MB",
    "POPE",
    "total",
    "prefill",
)


@dataclass(frozen=True)
class EfficiencyTable:
    """Table 2.

    Args:
        more: methods besides the paper's.
    """

    more: Sequence[str] = ()
    name = f"table{NUMBER}"

    @property
    def title(self) -> str:
        return f"Table {NUMBER}: {paper.raw(NUMBER)['title']}"

    def by_label(self, target: Target) -> dict[str, Cell]:
        """Return label -> the POPE run of every line, the unpruned one first."""
        model = printed()[0]["model"]
        removed = next(row.removed for row in paper.rows("1") if row.model == model and row.removed)
        methods = {LABELS[row["method"]]: paper.METHODS.get(row["method"], row["method"]) for row in printed()}
        methods |= {CONTROLS.get(name, name): name for name in self.more}
        pope = paper.COLUMNS["pope"][1]
        return {
            label: Cell(pope, options(method, removed, target))
            for label, method in methods.items()
            if works_on(method, target)
        }

    def cells(self, target: Target) -> list[Cell]:
        return list(self.by_label(target).values())

    def make(self, store: Store, output: Path) -> list[Path]:
        by_label = self.by_label(store.target)
        found = store.records(by_label.values())
        measured, sentences = runner_costs({label: found[cell] for label, cell in by_label.items() if cell in found})
        benched, problems = bench_costs(store)
        advice = artefacts.missing_advice(store, self.cells(store.target), self.name)
        if not measured and not any(benched.values()):
            raise BadData(f"No results for {self.title}. {advice}")
        said = [*_notes(list(found.values()), store), *sentences, *problems, *([advice] if advice else [])]
        parts = {"POPE": interleave(measured, store.target)}
        methods = {cell.options.method for cell in by_label.values()}
        parts |= {
            f"llava.bench {kind}": [cost for cost in costs if cost.method in methods and not cost.is_slice]
            for kind, costs in benched.items()
        }
        return artefacts.write(_sheet(self.title, parts, said), output, self.name)


def interleave(measured: Sequence[Cost], target: Target) -> list[Cost]:
    """Return the measured lines, each followed by what the paper prints for the method."""
    beside = {cost.label: cost for cost in paper_costs()}
    done: list[Cost] = []
    for cost in measured:
        done += [cost, *filter(None, [beside.pop(cost.label.removesuffix(f" {OTHER}"), None)])]
    return [*done, *beside.values()]


def _notes(found: Sequence[Record], store: Store) -> list[str]:
    rows = printed()
    whole, dart = rows[0], rows[-1]
    shape = paper.raw(NUMBER)["shape"]
    speedups = "; ".join(
        f"{LABELS[row['method']]} {whole['total_time_s'] / row['total_time_s']:.3f}"
        + (f" and {whole['prefill_time_s'] / row['prefill_time_s']:.3f}" if row["prefill_time_s"] else "")
        for row in rows[1:]
    )
    own = store.target.family == paper.FAMILIES[whole["model"]]
    said = [
        f"{whole['model']} on an A100 is the paper's; "
        + (f"{store.target.name} was run here." if own else f"it was not run: {store.target.name} stands beside it."),
        "Seconds are for all questions, warm-up batch left out; `prefill` ends with the first token, image encoding "
        "included; a busy machine shows in both. Lines of `llava.bench` are of the shape and device they "
        "name, the prefill's seconds there of one prefill; files of a slice of a model are left out. Slower than the "
        "unpruned model is a speed-up below 1.",
        f"The paper's speed-ups (total and prefill) formed again from its times: {speedups}.",
        f"\u2260 The paper prints {dart['flops_percent']} % FLOPs; its Eqs. 11-13 with the cut after layer "
        f"{shape['pruned_after']} give {formula_percent(dart['tokens'], whole['tokens']):.2f} %.",
        f"\u2260 The paper prints {dart['kv_cache_mb']:.1f} MB of cache: {dart['tokens']} tokens in every layer; "
        f"with the {shape['pruned_after']} unpruned layers it is {cache_mb(dart['tokens'], whole['tokens']):.1f} MB.",
        *surroundings(found),
        *left_over(store),
        artefacts.command_of(store, f"table{NUMBER}"),
    ]
    return said


def _sheet(title: str, parts: Mapping[str, Sequence[Cost]], notes: Sequence[str]) -> Sheet:
    rows, numbers = [], []
    for part, costs in parts.items():
        if costs:
            rows.append([f"**{part}**", *[""] * (len(HEADER) - 1)])
        rows += [_text(cost) for cost in costs]
        numbers += [[part, *asdict(cost).values()] for cost in costs]
    text = page(title, markdown(HEADER, rows, words=2), notes)
    content = {
        "title": title,
        "parts": {part: [asdict(cost) for cost in costs] for part, costs in parts.items()},
        "notes": list(notes),
    }
    return Sheet(text, ["part", *Cost.__dataclass_fields__], numbers, content)


def _text(cost: Cost) -> list[str]:
    return [
        cost.label,
        cost.source,
        number(cost.tokens, 0),
        number(cost.asked, 0),
        number(cost.mean_over_layers, 0),
        clock(cost.total_s),
        clock(cost.prefill_s),
        _share(cost.flops_percent),
        _share(cost.flops_exact_percent),
        number(cost.cache_mb, 1),
        number(cost.score, 1),
        _times(cost.speedup_total),
        _times(cost.speedup_prefill),
    ]


def clock(seconds: float | None) -> str:
    """Return minutes:seconds as the paper has them, or seconds when there are few."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _share(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f} %"


def _times(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}x"
