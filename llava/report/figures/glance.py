"""The figure `budget`: every method's score over the budget, one line each, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.errors import BadData
from llava.report import records as files
from llava.report.cells import Cell, Target
from llava.report.figures import style
from llava.report.figures.output import Drawn, write
from llava.report.figures.scores import Record, setting

if TYPE_CHECKING:
    from llava.report.store import Store

GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "duplication or diversity": (style.VERMILION, "o", ("dart", "dart_features", "divprune")),
    "attention inside the language model": (style.BLUE, "s", ("fastv", "sparsevlm", "pyramiddrop", "mustdrop")),
    "attention of the vision tower": (
        style.GREEN,
        "^",
        ("visionzip", "fastervlm", "hired", "prumerge", "prumerge_plus", "globalcom2", "ficoco_v"),
    ),
    "merging in the tower": (style.PURPLE, "D", ("tome",)),
    "controls": (style.GREY, "X", ("random", "uniform", "pooling", "smaller_image")),
}
"""How a method chooses: name in the legend, colour, marker, methods."""
OTHERS = ("other methods", style.ORANGE, "v")
STRONG = ("dart", "random")
SPACE = 0.0325  # of the axis's height between two names


@dataclass(frozen=True)
class AllMethods:
    """Score relative to the unpruned model, mean over the benchmarks, against the budget asked for."""

    folder: str = "docs/results/nano-methods"
    name: ClassVar[str] = "budget"
    title: ClassVar[str] = "All methods at a glance"

    def cells(self, target: Target) -> list[Cell]:
        """None: it draws whatever a folder holds."""
        return []

    def make(self, store: Store, output: Path) -> list[Path]:
        """Write the figure's files; the runs are those of `--results`, or by default of the committed folder.

        Raises:
            BadData: no method has two budgets there, or the unpruned runs are missing.
        """
        from llava.report.cells import Source

        usual = store.source.results == Source().results
        found = [
            one for folder in ([Path(self.folder)] if usual else store.source.folders) for one in files.read(folder)
        ]
        with style.drawing():
            drawn = self.draw(plain(found))
            return write(drawn, output, self.name)

    def draw(self, found: Sequence[Record]) -> Drawn:
        """Draw one line per method.

        Raises:
            ConfigurationError: the runs differ in more than the method.
        """
        from matplotlib import pyplot
        from matplotlib.lines import Line2D

        files.check_alike(found)
        curves = relative_scores(found)
        budgets = sorted({budget for curve in curves.values() for budget in curve}, reverse=True)
        if len(budgets) < 2:
            raise BadData(
                "budget needs the unpruned model and methods at two or more budgets on the same benchmarks: python -m "
                "llava.eval textvqa mme --method none,dart,random --keep 192,128,64 --output FOLDER"
            )
        figure, axis = pyplot.subplots(figsize=(style.WIDTH, 6.2), layout="constrained")
        last = len(budgets) - 1
        places = {budget: place for place, budget in enumerate(budgets)}
        ends = {}
        for method, curve in curves.items():
            _, colour, marker = group_of(method)
            strong = method in STRONG
            axis.plot(
                [places[budget] for budget in budgets if budget in curve],
                [curve[budget]["relative_percent"] for budget in budgets if budget in curve],
                color=colour,
                marker=marker,
                linewidth=3.4 if strong else 1.6,
                markersize=8 if strong else 5.5,
                alpha=1 if strong else 0.85,
                zorder=4 if strong else 3,
            )
            if budgets[last] in curve:
                ends[method] = curve[budgets[last]]["relative_percent"]
        axis.plot([-0.1, last], [100, 100], color=style.BLACK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axis.annotate("unpruned", (-0.08, 100), (0, 4), textcoords="offset points", fontsize=9.5)
        low, high = min(curve[b]["relative_percent"] for curve in curves.values() for b in curve), 100.0
        axis.set_ylim(low - 0.05 * (high - low), high + 0.06 * (high - low))
        spread_labels(axis, ends, last, SPACE * (axis.get_ylim()[1] - axis.get_ylim()[0]))
        axis.set_xlim(-0.1, last + 0.52)
        axis.set_xticks(range(len(budgets)), [f"{budget:g}" for budget in budgets])
        visual = round(found[0]["accounting"]["visual"])
        axis.set_xlabel(f"visual tokens asked for, of {visual}")
        axis.set_ylabel("score, % of the unpruned model")
        axis.grid(axis="x", visible=False)
        shown = {group_of(method) for method in curves}
        every = [(label, colour, marker) for label, (colour, marker, _) in GROUPS.items()] + [OTHERS]
        handles = [
            Line2D([], [], color=colour, marker=marker, label=label)
            for label, colour, marker in every
            if (label, colour, marker) in shown
        ]
        axis.legend(handles=handles, loc="lower left", title="chosen by", alignment="left")
        rows = [
            {"method": method, "budget": budget, **curve[budget]}
            for method, curve in sorted(curves.items())
            for budget in budgets
            if budget in curve
        ]
        notes = [
            "Mean over the benchmarks of the score relative to the unpruned model. The same budget is not the same "
            "cost: `mean per layer` says how many visual tokens a layer really saw.",
            setting(found),
        ]
        return Drawn(figure, self.title, rows, notes, {"artefact": self.name})


def plain(found: Sequence[Record]) -> list[Record]:
    """The runs to compare: of several of one method, budget and benchmark the one with the shortest label, the newest.

    Folders may hold sweeps of other options too; their labels name those options. Budgets that only one method was run
    at say nothing here.
    """
    chosen: dict[tuple[str, str, str], Record] = {}
    for one in sorted(found, key=lambda one: one.get("finished", ""), reverse=True):
        name, label = one["method"]["name"], one["method"]["label"]
        key = (name, "" if name == "none" else label.rpartition("-")[2], one["benchmark"])
        if key not in chosen or len(label) < len(chosen[key]["method"]["label"]):
            chosen[key] = one
    methods = {name for name, _, _ in chosen if name != "none"}
    shared = {budget for _, budget, _ in chosen if len({n for n, b, _ in chosen if b == budget}) > 1}
    return [one for (name, budget, _), one in chosen.items() if name == "none" or len(methods) < 2 or budget in shared]


def relative_scores(found: Sequence[Record]) -> dict[str, dict[int, dict[str, Any]]]:
    """Method -> budget -> relative score in percent and what was kept, means over the benchmarks all share."""
    full = {one["benchmark"]: one["headline"]["value"] for one in found if one["method"]["name"] == "none"}
    groups: dict[tuple[str, int], dict[str, Record]] = {}
    for one in found:
        asked = one["method"]["label"].rpartition("-")[2]
        if one["method"]["name"] != "none" and asked.isdigit() and full.get(one["benchmark"]):
            groups.setdefault((one["method"]["name"], int(asked)), {})[one["benchmark"]] = one
    curves: dict[str, dict[int, dict[str, Any]]] = {}
    for (method, budget), runs in groups.items():
        if set(runs) != set(full):
            continue
        curves.setdefault(method, {})[budget] = {
            "relative_percent": statistics.fmean(100 * r["headline"]["value"] / full[b] for b, r in runs.items()),
            "kept_last_layer": statistics.fmean(r["accounting"]["final"] for r in runs.values()),
            "mean_per_layer": statistics.fmean(r["accounting"]["mean_over_layers"] for r in runs.values()),
            "benchmarks": len(runs),
        }
    return curves


def group_of(method: str) -> tuple[str, str, str]:
    """Legend name, colour and marker of a method."""
    for label, (colour, marker, names) in GROUPS.items():
        if method in names:
            return label, colour, marker
    return OTHERS


def spread_labels(axis: Any, ends: Mapping[str, float], place: float, gap: float) -> None:
    """Write the methods' names right of their last points, moved apart where they would touch."""
    heights = apart([ends[method] for method in sorted(ends, key=ends.__getitem__)], gap)
    for method, height in zip(sorted(ends, key=ends.__getitem__), heights, strict=True):
        colour = group_of(method)[1]
        axis.plot(
            [place + 0.03, place + 0.085], [ends[method], height], color=colour, linewidth=0.8, clip_on=False, zorder=2
        )
        weight = "bold" if method in STRONG else "normal"
        words = f"{method}  {ends[method]:.0f} %"
        axis.text(place + 0.095, height, words, color=colour, va="center", fontsize=9.5, fontweight=weight)


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending values moved as little as possible (in blocks that keep their centre) until `gap` lies between them."""
    blocks: list[list[float]] = []  # [sum of wished first places, number]
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1:
            (before, n), (now, m) = blocks[-2:]
            if before / n + n * gap <= now / m:
                break
            blocks[-2:] = [[before + now - m * n * gap, n + m]]
    return [total / n + k * gap for total, n in blocks for k in range(int(n))]
