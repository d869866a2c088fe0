"""What is found about a claim, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

HOLDS, PARTLY, FAILS, UNTESTED = "holds", "in part", "does not hold", "not testable here"


@dataclass(frozen=True)
class Verdict:
    """What the results say of one claim.

    Args:
        outcome: `HOLDS`, `PARTLY` (right direction, smaller size), `FAILS` or `UNTESTED`.
        here: what was measured, or why nothing was.
        rule: what was asked of the numbers.
    """

    outcome: str
    here: str
    rule: str


def judged(holds: bool, partly: bool, here: str, rule: str) -> Verdict:
    """Return the verdict of two conditions."""
    return Verdict(HOLDS if holds else PARTLY if partly else FAILS, here, rule)


def untested(why: str, rule: str) -> Verdict:
    """Return that nothing can be said, and why."""
    return Verdict(UNTESTED, why, rule)
