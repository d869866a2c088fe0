"""Claims 6 to 10, 15 and 16: scores relative to the unpruned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.report import paper
from llava.report.budgets import works_on
from llava.report.claims.evidence import NINTH, Averages, Evidence
from llava.report.claims.verdict import Verdict, judged, untested
from llava.report.tables.lines import USUAL_PIVOT, stand_in
from llava.report.tables.video import VideoTable, measured_lines

ROUNDING = 0.05
"""The paper prints one decimal."""
LLAVA, NEXT = "LLaVA-1.5-7B", "LLaVA-Next-7B"
IMPORTANCE = ("fastv", "sparsevlm")


def _paper_averages(table: str, model: str, removed: float) -> dict[str, float]:
    """Method (or DART's pivot criterion) -> the average that its printed scores give."""
    rows = paper.rows(table)
    found = {
        row.pivot or row.ours: paper.average(row, rows).value
        for row in rows
        if row.model == model and row.removed == removed
    }
    return {name: value for name, value in found.items() if value is not None}


def _methods(evidence: Evidence, model: str, removed: float) -> Averages:
    """Averages here of the methods that the paper's Table 1 has at one budget."""
    names = [name for name in _paper_averages("1", model, removed) if works_on(name, evidence.target)]
    return evidence.averages("1", removed, {name: (name, ()) for name in names})


def averages_and_margins(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 6."""
    rule = (
        "averages and margins over the second best of the paper's methods (at 192 and 64) are at least the paper's; in "
        "part: DART is first at all three budgets"
    )
    told, reached, first = [], [], []
    for setting in ("retain_192", "retain_128", "retain_64"):
        removed = paper.REDUCTIONS[setting]
        here, printed = _methods(evidence, LLAVA, removed), _paper_averages("1", LLAVA, removed)
        if "dart" not in here.values or len(here.values) < 2:
            continue
        others = {name: value for name, value in here.values.items() if name != "dart"}
        second = max(others, key=lambda name: others[name])
        margin = here.values["dart"] - others[second]
        goal = printed["dart"] - max(value for name, value in printed.items() if name != "dart")
        judged_margin = setting != "retain_128"
        enough = here.values["dart"] >= printed["dart"] - ROUNDING
        reached.append(enough and (margin >= goal - ROUNDING or not judged_margin))
        first.append(margin > 0)
        told.append(
            f"{setting.removeprefix('retain_')}: {here.values['dart']:.1f}, best other {second} {others[second]:.1f} "
            f"({margin:+.1f}; {len(others)} others, {here.over})"
        )
    if not told:
        return untested("no results of DART, other methods and the unpruned model; run `table 1 --run`", rule)
    return judged(all(reached) and len(reached) == 3, all(first) and len(first) == 3, "; ".join(told), rule)


def next_average(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 7."""
    printed = _paper_averages("1", NEXT, NINTH)["dart"]
    rule = f"the average at 11.1 % of the tokens is at least {printed:.1f} %"
    here = evidence.averages("1", NINTH, {"dart": ("dart", ())})
    if not here.values:
        return untested("no results of DART at 11.1 % of the tokens", rule)
    own = "" if stand_in("1", evidence.target) == NEXT else f" on {evidence.target.name}, not on {NEXT}"
    value = here.values["dart"]
    return judged(value >= printed - ROUNDING, False, f"{value:.1f} %{own} ({here.over})", rule)


def _criteria(evidence: Evidence) -> tuple[Averages, dict[str, float]]:
    """Averages of DART with every pivot criterion, and of the importance methods: here, and the paper's."""
    rows = paper.rows("6")
    removed = next(row.removed for row in rows if row.pivot)
    printed = _paper_averages("6", LLAVA, removed)
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {
        name: (name, ()) if name in IMPORTANCE else ("dart", () if name == USUAL_PIVOT else (f"criterion={name}",))
        for name in printed
    }
    return evidence.averages("6", removed, wanted), printed


def random_pivots(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 8."""
    rule = (
        f"random pivots lose at most {numbers['cost']} points against the best criterion and are at least "
        f"{numbers['ahead']} ahead of the better of FastV and SparseVLM; in part: they are ahead of it"
    )
    here, _ = _criteria(evidence)
    pivots = {name: value for name, value in here.values.items() if name not in IMPORTANCE}
    importance = {name: value for name, value in here.values.items() if name in IMPORTANCE}
    if "random" not in pivots or len(pivots) < 2 or not importance:
        return untested("no results with random pivots, other pivots and FastV or SparseVLM; run `table 6 --run`", rule)
    best, rival = max(pivots, key=lambda n: pivots[n]), max(importance, key=lambda n: importance[n])
    cost, ahead = pivots[best] - pivots["random"], pivots["random"] - importance[rival]
    told = (
        f"random pivots {pivots['random']:.1f}, best ({best}) {pivots[best]:.1f}: {cost:.1f} points; {rival} "
        f"{importance[rival]:.1f}: {ahead:+.1f} points ({here.over})"
    )
    holds = cost <= numbers["cost"] + ROUNDING and ahead >= numbers["ahead"] - ROUNDING
    return judged(holds, ahead > 0, told, rule)


def every_criterion(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 9."""
    rule = f"the lowest of the seven averages is at least {numbers['percent']} %"
    here, printed = _criteria(evidence)
    pivots = {name: value for name, value in here.values.items() if name not in IMPORTANCE}
    expected = len(printed) - len(IMPORTANCE)
    if len(pivots) < expected:
        return untested(f"results of {len(pivots)} of {expected} criteria; run `table 6 --run`", rule)
    lowest, highest = min(pivots, key=lambda n: pivots[n]), max(pivots, key=lambda n: pivots[n])
    told = f"{pivots[lowest]:.1f} ({lowest}) to {pivots[highest]:.1f} ({highest}), {here.over}"
    return judged(pivots[lowest] >= numbers["percent"] - ROUNDING, False, told, rule)


def attention_pivots(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 10."""
    rule = f"they differ by at most {numbers['points']} points, either way; in part: by less than 1"
    here, _ = _criteria(evidence)
    if not {"attention_max", "attention_min"} <= set(here.values):
        return untested("no results with pivots of largest and smallest attention; run `table 6 --run`", rule)
    highest, lowest = here.values["attention_max"], here.values["attention_min"]
    told = f"{highest:.1f} and {lowest:.1f}: {highest - lowest:+.2f} points ({here.over})"
    difference = abs(highest - lowest)
    return judged(difference <= numbers["points"] + ROUNDING, difference < 1, told, rule)


def worse_than_random(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 15."""
    rule = "the average of random tokens is above those of both; in part: above one of them"
    wanted = {name: (name, ()) for name in ("random", *IMPORTANCE) if works_on(name, evidence.target)}
    here = evidence.averages("1", NINTH, wanted)
    if "random" not in here.values or len(here.values) < 3:
        return untested("no results of random, FastV and SparseVLM at 11.1 % of the tokens; run `table 1 --run`", rule)
    chance = here.values["random"]
    above = [chance > here.values[name] for name in IMPORTANCE]
    told = ", ".join(f"{name} {value:.1f}" for name, value in here.values.items()) + f" ({here.over})"
    return judged(all(above), any(above), told, rule)


def video(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 16."""
    rule = "DART's averages are above FastV's (accuracy, and the judge's score where there is one)"
    if not evidence.target.takes_videos:
        return untested(f"{evidence.target.name} takes no videos", rule)
    lines = {line.label.rpartition(" ")[2]: line for line in measured_lines(VideoTable(), evidence.store)}
    dart, fastv = lines.get("DART"), lines.get("FastV")
    if dart is None or fastv is None or None in (dart.averages[0].value, fastv.averages[0].value):
        return untested("no video results of DART and FastV; run `table 5 --run`", rule)
    pairs = [
        (mine.value, other.value)
        for mine, other in zip(dart.averages, fastv.averages, strict=True)
        if mine.value is not None and other.value is not None
    ]
    metric = " and ".join(sorted(set(dart.metrics.values())))
    told = "; ".join(f"DART {mine:.1f}, FastV {other:.1f}" for mine, other in pairs) + f" ({metric})"
    ahead = [mine > other for mine, other in pairs]
    return judged(all(ahead), any(ahead), told, rule)
