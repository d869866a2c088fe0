"""Budgets of methods that cut several times: schedules, and the schedule whose mean over layers is what was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llava.errors import ConfigurationError

OFFICIAL, EXACT, MEAN = "official", "exact", "mean"
STEPS = 60  # halvings of the interval in which a schedule's scale is looked for

Counts = list[int]


def mean_over_layers(n_visual: int, cuts: Sequence[int], counts: Sequence[int], n_layers: int) -> float:
    """Visual tokens per layer: `n_visual` before the first cut, counts[i] from layer cuts[i] on."""
    total, start, seen = 0, 0, n_visual
    for layer, count in zip(cuts, counts, strict=True):
        total += (layer - start) * seen
        start, seen = layer, count
    return (total + (n_layers - start) * seen) / n_layers


def count_after_one_cut(target: float, n_visual: int, layer: int, n_layers: int | None) -> int:
    """Visual tokens to keep at a single cut so that the mean over layers is nearest to `target`.

    Args:
        target: visual tokens per layer, mean over all layers.
        n_visual: visual tokens before the cut.
        layer: decoder layer whose input is cut; `layer` layers see everything.
        n_layers: layers of the model; None: not known yet.

    Raises:
        ConfigurationError: even dropping everything leaves a larger mean; or the model is not known yet.
    """
    n_layers = known(n_layers)
    refuse_unreachable(target, n_visual, layer, n_layers)
    return min(n_visual, round((n_layers * target - layer * n_visual) / (n_layers - layer)))


def counts_for_mean(
    target: float, n_visual: int, cuts: Sequence[int], n_layers: int | None, shape: Callable[[float], Counts]
) -> Counts:
    """Visual tokens after each of several cuts so that the mean over layers is nearest to `target`.

    Args:
        target: visual tokens per layer, mean over all layers.
        n_visual: visual tokens before the first cut.
        cuts: decoder layers whose input is cut, ascending.
        n_layers: layers of the model; None: not known yet.
        shape: a method's own way of spreading: counts for a scale from 0 (nothing stays) upwards, never falling.

    Raises:
        ConfigurationError: see `count_after_one_cut`.
    """
    n_layers = known(n_layers)
    refuse_unreachable(target, n_visual, cuts[0], n_layers)
    low, high = 0.0, 1.0
    while mean_over_layers(n_visual, cuts, shape(high), n_layers) < target and high < 2**STEPS:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        if mean_over_layers(n_visual, cuts, shape(middle), n_layers) < target:
            low = middle
        else:
            high = middle
    return min(
        (shape(low), shape(high)), key=lambda counts: abs(mean_over_layers(n_visual, cuts, counts, n_layers) - target)
    )


def settle_last(
    counts: Sequence[int], target: float, n_visual: int, cuts: Sequence[int], n_layers: int | None
) -> Counts:
    """Change the last count, within the one before it, so that the mean over layers is nearest to `target`."""
    n_layers = known(n_layers)
    missing = (target - mean_over_layers(n_visual, cuts, counts, n_layers)) * n_layers / (n_layers - cuts[-1])
    before = counts[-2] if len(counts) > 1 else n_visual
    return [*counts[:-1], max(0, min(before, counts[-1] + round(missing)))]


def scaled_layers(layers: Sequence[int], designed_for: int, n_layers: int | None) -> tuple[int, ...]:
    """Layers to cut at in a model with fewer layers than the schedule was designed for: at the same depth.

    Args:
        layers: decoder layers whose input is cut, ascending.
        designed_for: layers of the model they were published for.
        n_layers: layers of the model at hand; None or more than `designed_for`: no change.
    """
    if n_layers is None or n_layers >= designed_for:
        return tuple(layers)
    found: list[int] = []
    for layer in layers:
        found.append(max(found[-1] + 1 if found else 1, round(layer * n_layers / designed_for)))
    return tuple(found)


def known(n_layers: int | None) -> int:
    """The number of layers, or a refusal when the method has not met its model."""
    if n_layers is None:
        raise ConfigurationError(
            "A mean over layers depends on how many layers the model has: ask the method at work, "
            "`with method(model) as pruning: pruning.method`, or `method.fitted(n_layers)`."
        )
    return n_layers


def refuse_unreachable(target: float, n_visual: int, layer: int, n_layers: int) -> None:
    """Refuse a mean that cannot be reached, and say what can."""
    least = layer * n_visual / n_layers
    if target < least:
        raise ConfigurationError(
            f"A mean of {target:g} visual tokens per layer cannot be reached: the first {layer} of {n_layers} layers "
            f"see all {n_visual}, which alone makes {least:.1f}. Give keep >= {-int(-least // 1)}, or cut at an "
            "earlier layer."
        )
