"""From the paper's settings to a method's options for a model, and the budget of a row, three ways."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from llava.errors import BadInput, ConfigurationError
from llava.methodoptions import MethodOptions
from llava.reduction import registry, released
from llava.report.cells import Target
from llava.report.store import Record

PAIRS = ((0.667, 192), (0.778, 128), (0.889, 64))
"""Fraction removed and tokens kept of 576, as the released scripts pair them."""
NEXT, ONE_NINTH = "320", PAIRS[-1][0]
"""Preset for LLaVA-NeXT, and the fraction it removes."""
UNTRAINED = dict.fromkeys(("prumerge", "prumerge_plus"), "layer=-2")
"""Methods that read the last block of the vision tower by default: in the embedded model nothing else reads that block,
so that it was never trained."""


def options(method: str, removed: float, target: Target, **more: Any) -> MethodOptions:
    """Return the options of a method when a fraction of the visual tokens is removed.

    Args:
        method: our name of it; "none" has no budget.
        removed: e.g. 0.778; 0 for the unpruned model.
        target: LLaVA-1.5 takes the published preset of 192, 128 or 64 tokens, LLaVA-NeXT that of 320; DART follows
            the released rule of the family; every other model keeps the fraction.
        more: further fields, e.g. `layer=3` or `set=("criterion=random",)`.
    """
    if method == "none":
        return MethodOptions(method="none")
    if target.embedded and method in UNTRAINED:
        more["set"] = (UNTRAINED[method], *more.get("set", ()))
    presets = _presets(method)
    counts = dict(PAIRS)
    if target.rule == released.LLAVA and removed in counts:
        count = str(counts[removed])
        budget: dict[str, Any] = {"preset": count} if count in presets else {"keep": counts[removed]}
    elif target.rule == released.LLAVA_NEXT and removed == ONE_NINTH and (method == "dart" or NEXT in presets):
        budget = {"reduction_ratio": removed} if method == "dart" else {"preset": NEXT}
    elif target.rule == released.QWEN2_VL:
        budget = {"reduction_ratio": removed}
    else:
        budget = {"keep": round(1 - removed, 6)}
    return MethodOptions(method=method, **budget, **more)


def works_on(method: str, target: Target) -> bool:
    """Whether a method can work on the target's family, as far as the classes tell."""
    try:
        return target.family in _families(method)
    except ConfigurationError:
        return False


@cache
def _families(method: str) -> frozenset[str]:
    from llava.methods import families_of

    return frozenset(families_of(registry.get(method)).replace(",", " ").split())


def _presets(method: str) -> set[str]:
    return set(registry.get(method).presets) if method in registry.names() else set()


@dataclass(frozen=True)
class Budget:
    """What a row cost, as means over its results.

    Args:
        visual: visual tokens of a prompt before any cut.
        asked: visual tokens asked for.
        kept: visual tokens that the last layer sees.
        mean_over_layers: visual tokens that a layer sees on average.
        cache_percent: bytes of the cache, of the unpruned ones.
        flops_percent: operations of the prefill (three feed-forward matrices, text included), of the unpruned ones.
        flops_paper_percent: the same by the paper's Eqs. 11-13.
        questions: questions behind all results of the row.
    """

    visual: float | None
    asked: float | None
    kept: float | None
    mean_over_layers: float | None
    cache_percent: float | None
    flops_percent: float | None
    flops_paper_percent: float | None
    questions: int

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(asdict(self).items())


def budget(found: Sequence[Record], row: str) -> Budget:
    """Return the budget of a row's results.

    Raises:
        BadInput: the results had the same number of visual tokens and were asked to keep different numbers.
    """
    counts = [record["accounting"] for record in found]
    by_visual: dict[Any, set[Any]] = {}
    for one in counts:
        by_visual.setdefault(one.get("visual"), set()).add(one.get("asked"))
    mixed = [sorted(map(str, asked)) for asked in by_visual.values() if len(asked) > 1]
    if mixed:
        raise BadInput(
            f"{row}: its results were asked to keep different numbers of tokens ({', '.join(mixed[0])}). One row "
            "is one budget: remove the results that do not belong there, or give only folders whose results do."
        )
    return Budget(
        _mean(counts, "visual"),
        _mean(counts, "asked"),
        _mean(counts, "final"),
        _mean(counts, "mean_over_layers"),
        _percent(counts, "cache_bytes"),
        _percent(counts, "flops_exact"),
        _percent(counts, "flops_paper"),
        sum(record["samples"]["scored"] for record in found),
    )


def _mean(counts: Sequence[Any], name: str) -> float | None:
    values = [one.get(name) for one in counts]
    return statistics.fmean(values) if values and all(isinstance(v, (int, float)) for v in values) else None


def _percent(counts: Sequence[Any], name: str) -> float | None:
    part, whole = _mean(counts, name), _mean(counts, f"{name}_unpruned")
    return None if part is None or not whole else 100 * part / whole
