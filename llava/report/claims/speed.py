"""Claims 1 to 5 and 17: times, operations, the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.report import paper
from llava.report.claims.evidence import Evidence
from llava.report.claims.verdict import Verdict, judged, untested
from llava.report.tables.costs import runner_costs

NO_TIMES = "no times of {} and of the unpruned model: run `table 2 --run`, or give the folder of `llava.bench` results"
FUSED = ("sdpa", "flash_attention_2")


def _printed(method: str) -> Mapping[str, Any]:
    return next(row for row in paper.raw("2")["rows"] if row["method"] == method)


def _reached(evidence: Evidence, method: str) -> tuple[bool, bool, list[str]]:
    """Whether one measurement reaches all the paper's speed-ups of a method; whether any is above 1; all in words."""
    row, timings = _printed(method), evidence.timings(method)
    wanted = (row["speedup_total"], row["speedup_prefill"])
    reached = any(
        all(goal is None or (value is not None and value >= goal) for value, goal in zip(pair, wanted, strict=True))
        for pair in ((timing.total, timing.prefill) for timing in timings)
    )
    faster = any(value > 1 for timing in timings for value in (timing.total, timing.prefill) if value is not None)
    return reached, faster, [f"{paper.LABELS[method]} {timing}" for timing in timings]


def speed_of_dart(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 1."""
    rule = "one measurement reaches both speed-ups; in part: faster than the unpruned model"
    reached, faster, told = _reached(evidence, "dart")
    return judged(reached, faster, "; ".join(told), rule) if told else untested(NO_TIMES.format("dart"), rule)


def speed_of_others(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 2."""
    rule = "both methods reach their speed-ups in one measurement each; in part: faster than the unpruned model"
    found = [_reached(evidence, method) for method in ("fastv", "sparsevlm")]
    if not all(told for _, _, told in found):
        return untested(NO_TIMES.format("fastv and sparsevlm"), rule)
    here = "; ".join(line for _, _, told in found for line in told)
    return judged(all(reached for reached, _, _ in found), any(faster for _, faster, _ in found), here, rule)


def drop_on_pope(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 3."""
    rule = f"the loss is below {numbers['drop_percent']} % of the unpruned score"
    pruned, whole = evidence.pope("dart"), evidence.pope("none")
    if not pruned or not whole or not whole["headline"]["value"]:
        return untested("no POPE results of DART at 11.1 % and of the unpruned model", rule)
    scores = pruned["headline"]["value"], whole["headline"]["value"]
    drop = 100 * (1 - scores[0] / scores[1])
    here = f"{scores[0]:.1f} of {scores[1]:.1f}: {-drop:+.2f} % ({pruned['samples']['scored']} questions)"
    return judged(drop < numbers["drop_percent"], False, here, rule)


def sparsevlm_is_slower(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 4."""
    rule = "SparseVLM loses more speed (in %) than it costs more FLOPs (in points); in part: it is slower"
    found = {name: record for name in ("none", "dart", "sparsevlm") if (record := evidence.pope(name))}
    if len(found) < 3:
        return untested(NO_TIMES.format("dart and sparsevlm"), rule)
    _, dart, sparse = runner_costs(found)[0]
    if None in (dart.speedup_total, sparse.speedup_total, dart.flops_percent, sparse.flops_percent):
        return untested("the times of the POPE runs cannot be compared", rule)
    points = (sparse.flops_percent or 0) - (dart.flops_percent or 0)
    slower = 100 * (1 - (sparse.speedup_total or 0) / (dart.speedup_total or 1))
    budgets = f"means per layer {dart.mean_over_layers:.0f} and {sparse.mean_over_layers:.0f} tokens"
    here = (
        f"SparseVLM: FLOPs {points:+.1f} points, speed {-slower:+.1f} % against DART at the same preset ({budgets}; "
        f"{found['dart']['samples']['scored']} questions)"
    )
    return judged(slower > max(points, 0), slower > 0, here, rule)


def selection_time(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 5."""
    rule = f"DART's selection stays below {numbers['seconds']} s per prompt in every measurement"
    found = evidence.selection_seconds("dart")
    if not found:
        return untested("no selection times of DART", rule)
    here = "; ".join(f"{1000 * seconds:.2f} ms ({where})" for where, seconds in found.items())
    return judged(max(found.values()) < numbers["seconds"], min(found.values()) < numbers["seconds"], here, rule)


def efficient_attention(evidence: Evidence, numbers: Mapping[str, Any]) -> Verdict:
    """Claim 17."""
    rule = (
        "DART ran on a fused kernel, and its prefill there is faster than the unpruned one; that the kept sets are the "
        "same on every kernel is for the unit tests"
    )
    runs = [record for record in evidence.store.all("dart") if record["attention"] in FUSED]
    if not runs:
        return untested("no results of DART with sdpa or flash_attention_2", rule)
    kernels = " and ".join(sorted({record["attention"] for record in runs}))
    prefill = [timing.prefill for timing in evidence.timings("dart") if timing.prefill is not None]
    told = f"{len(runs)} runs with {kernels}"
    told += f", prefill up to {max(prefill):.2f}x" if prefill else ", no prefill times"
    return judged(bool(prefill) and max(prefill) > 1, True, told, rule)
