"""Claims 11 to 14: what criteria keep in common, the pruned layer, the number and the source of pivots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.report.claims.evidence import Evidence, Point
from llava.report.claims.verdict import Verdict, judged, untested

K_NORM, V_NORM = "k_norm_max", "v_norm_max"
PIVOTS = ("pivots_visual", "pivots_text")


def overlap(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 11."""
    rule = f"the mean overlap of the kept sets is below {100 * numbers['share']:.0f} %"
    told, shares = [], []
    for path, content in evidence.store.files("analysis"):
        if content["analysis"] != "overlap" or not {"header", "rows"} <= set(content):
            continue
        for row in (dict(zip(content["header"], values, strict=True)) for values in content["rows"]):
            names = {str(row["method"]).rpartition(" ")[2], str(row["other"]).rpartition(" ")[2]}
            if names == {K_NORM, V_NORM}:
                shares.append(row["overlap"])
                told.append(
                    f"{100 * row['overlap']:.1f} % at {row['kept']:.0f} kept "
                    f"(chance {100 * row['chance level']:.1f} %, {content.get('samples', '?')} images, {path.name})"
                )
    if not told:
        return untested("no overlap: run `python -m llava.analysis overlap` and give its folder with --results", rule)
    below = [share < numbers["share"] for share in shares]
    return judged(all(below), any(below), "; ".join(told), rule)


def late_layers(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 12."""
    rule = (
        "on POPE, some cut at a layer of the paper's late depths (of equal share of all layers) is above the unpruned "
        f"score at every budget, and dropping everything there costs at most {numbers['drop_percent']} %; in part: one"
    )
    depth = evidence.layers
    groups = [group for group in evidence.swept("layer") if group[0].benchmark == "pope"]
    if not depth or not groups:
        return untested("no POPE results of DART at several layers; run `figure 5 --run`", rule)
    first, last = (share * depth / numbers["layers"] for share in numbers["late"])
    deep_first, deep_last = (share * depth / numbers["layers"] for share in numbers["very_late"])
    late = [[p for p in group if p.kept > 0 and first <= p.options["layer"] <= last] for group in groups]
    empty = [p for group in groups for p in group if p.kept == 0 and deep_first <= p.options["layer"] <= deep_last]
    late = [group for group in late if group]
    if not late and not empty:
        return untested("no POPE results of DART at late layers; run `figure 5 --run`", rule)
    best = [max(group, key=lambda point: point.relative) for group in late]
    beats = bool(best) and all(point.relative > 100 for point in best)
    lost = [100 - point.relative for point in empty]
    cheap = bool(lost) and max(lost) <= numbers["drop_percent"]
    told = [f"{p.relative:.1f} % with {p.kept:.0f} tokens after layer {p.options['layer']} of {depth}" for p in best]
    told += [f"{p.relative:.1f} % without visual tokens after layer {p.options['layer']}" for p in empty]
    return judged(beats and cheap, beats or cheap, "; ".join(told), rule)


def number_of_pivots(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 13."""
    few, usual, many = numbers["few"], numbers["usual"], numbers["many"]
    rule = (
        f"the mean with {usual} pivots (half of them text) is above all with {few} or fewer and all with {many} or "
        "more; in part: one of both"
    )
    means = _means(evidence, _count, usual, lambda point: _of(point)[0] - _of(point)[1] in (0, 1))
    sides = [
        {count: value for count, value in means.items() if count <= few},
        {count: value for count, value in means.items() if count >= many},
    ]
    if usual not in means or not all(sides):
        return untested("no results of DART with few, 8 and many pivots; run `figure 6 --run`", rule)
    better = [means[usual] > max(side.values()) for side in sides]
    told = ", ".join(f"{count}: {means[count]:.1f} %" for count in sorted(means))
    return judged(all(better), any(better), f"pivots: {told}", rule)


def source_of_pivots(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 14."""
    rule = "the mean with both kinds of pivots is above those with visual only and with text only; in part: one of them"
    means = _means(evidence, _kind, "both", lambda point: _count(point) == numbers["pivots"])
    if set(means) != {"both", "visual only", "text only"}:
        return untested("no results of DART with visual only and text only pivots; run `figure 7 --run`", rule)
    better = [means["both"] > means[name] for name in ("visual only", "text only")]
    return judged(all(better), any(better), ", ".join(f"{name} {means[name]:.1f} %" for name in means), rule)


def _of(point: Point) -> tuple[int, int]:
    """Visual and text pivots."""
    return point.options[PIVOTS[0]], point.options[PIVOTS[1]]


def _count(point: Point) -> int:
    return sum(_of(point))


def _kind(point: Point) -> str:
    visual, text = _of(point)
    return "both" if visual and text else "visual only" if visual else "text only"


def _means(
    evidence: Evidence, key: Callable[[Point], Any], needed: Any, taken: Callable[[Point], bool]
) -> dict[Any, float]:
    """Mean relative score by key, over the sweeps of pivots that have the key `needed` and the most keys.

    Args:
        taken: which points count.
    """
    sweeps: list[dict[Any, float]] = []
    for group in evidence.swept(*PIVOTS):
        by_key: dict[Any, list[float]] = {}
        for point in filter(taken, _keeping_some(group)):
            by_key.setdefault(key(point), []).append(point.relative)
        if needed in by_key and len(by_key) > 1:
            sweeps.append({name: statistics.fmean(values) for name, values in by_key.items()})
    longest = max((len(sweep) for sweep in sweeps), default=0)
    whole = [sweep for sweep in sweeps if len(sweep) == longest]
    shared = [name for name in (whole[0] if whole else {}) if all(name in sweep for sweep in whole)]
    return {name: statistics.fmean(sweep[name] for sweep in whole) for name in shared}


def _keeping_some(group: Sequence[Point]) -> list[Point]:
    return [point for point in group if point.kept > 0]
