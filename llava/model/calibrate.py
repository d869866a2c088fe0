"""Turning one option of an adaptive method until it keeps, on a set of samples, as many tokens as asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from llava.errors import ConfigurationError
from llava.reduction.base import Reduction
from llava.reduction.calibration import Calibration
from llava.reduction.checks import suggestion

MEASURES = ("mean_over_layers", "final")
STEPS, NEAR = 16, 0.005  # halvings at most; share of the target that is near enough


def calibrate(
    method: Reduction,
    model: Any,
    samples: Iterable[dict[str, Any]],
    target: float,
    *,
    measure: str = "mean_over_layers",
    steps: int = STEPS,
) -> Any:
    """Return the method with its threshold (`calibration` of its class) set so that it meets a budget on average.

    Every step runs the prefill of all samples once.

    Args:
        method: an adaptive method, e.g. `MustDrop(individual_thr=0.001)`.
        model: a vision-language model.
        samples: inputs of the model, as `processor(...)` gives them; batches are allowed.
        target: visual tokens per sample, mean over the samples.
        measure: "mean_over_layers" or "final" (tokens in the last layer).
        steps: halvings of the interval in which the option is looked for, which is taken as logarithmic.

    Raises:
        ConfigurationError: the method has nothing to calibrate, or the target cannot be met; the message says what can.
    """
    samples = list(samples)
    problems = []
    if method.calibration is None:
        problems.append(
            f"Method {method.name!r} keeps the count it is asked for and has nothing to calibrate: give keep."
        )
    if measure not in MEASURES:
        problems.append(
            f"measure={measure!r} is not known.{suggestion(measure, MEASURES)} Known: {', '.join(MEASURES)}."
        )
    if not samples:
        problems.append("There is no sample to calibrate on: give a few inputs of the model.")
    if problems:
        raise ConfigurationError(*problems)

    turned = method.calibration or Calibration("", 0, 0)

    def tokens(value: float) -> float:
        return _tokens(_turned(method, value), model, samples, measure)

    # `fewest` and `most` keep fewer and more tokens than the target, whichever of them is the larger value.
    fewest, most = (turned.low, turned.high) if turned.rises else (turned.high, turned.low)
    at_fewest, at_most = tokens(fewest), tokens(most)
    if not at_fewest * (1 - NEAR) <= target <= at_most * (1 + NEAR):
        raise ConfigurationError(
            f"{target:g} visual tokens per sample cannot be met by {turned.option} between {turned.low:g} and "
            f"{turned.high:g}: it gives {at_fewest:.1f} to {at_most:.1f}. Change another option of {method.name!r}."
        )
    best = min((abs(at_fewest - target), fewest), (abs(at_most - target), most))
    for _ in range(steps):
        if best[0] <= NEAR * target:
            break
        middle = math.sqrt(fewest * most)
        found = tokens(middle)
        best = min(best, (abs(found - target), middle))
        if found < target:
            fewest = middle
        else:
            most = middle
    return _turned(method, best[1])


def _turned(method: Any, value: float) -> Any:
    return replace(method, **{method.calibration.option: value})


def _tokens(method: Reduction, model: Any, samples: list[dict[str, Any]], measure: str) -> float:
    with torch.no_grad(), method(model) as pruning:
        for sample in samples:
            model(**sample, logits_to_keep=1)
        return pruning.summary()[measure]
