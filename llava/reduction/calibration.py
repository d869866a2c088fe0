"""Which option of an adaptive method is turned until it meets a budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """The option that `llava.model.calibrate` turns.

    Args:
        option: field of the method's class, a positive number.
        low, high: between which values it is looked for.
        rises: whether more tokens survive when it rises.
    """

    option: str
    low: float
    high: float
    rises: bool = True
