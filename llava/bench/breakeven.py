"""Where a method begins to pay: the number of visual tokens, and the number of generated tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llava.bench.options import NONE
from llava.bench.trials import OK

ALWAYS, NEVER, FROM, UP_TO = "always", "never", "from", "up to"


@dataclass(frozen=True)
class BreakEven:
    """When a method is faster than the unpruned model.

    Args:
        wins: "always" or "never" within what was measured; "from" or "up to" `at`.
        at: length, interpolated between the measured ones.
        measured: shortest and longest length; None where the answer holds for every length.
    """

    wins: str
    at: float | None = None
    measured: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    def words(self, unit: str) -> str:
        """Return a clause for the screen."""
        if self.at is not None:
            return f"is faster {self.wins} {self.at:.0f} {unit}"
        within = f" from {self.measured[0]:.0f} to {self.measured[1]:.0f} {unit}" if self.measured else ""
        return f"is {self.wins} faster{within}"


def over_lengths(lengths: Sequence[float], unpruned: Sequence[float], pruned: Sequence[float]) -> BreakEven:
    """Return from which length on (or up to which) the pruned time is the smaller one.

    The gain is taken to be linear between neighbouring lengths. If the sign changes more than once, as noise makes it
    near zero, the last change counts: beyond it the answer no longer changes.

    Args:
        lengths: ascending, at least one.
        unpruned, pruned: seconds at each length.
    """
    gains = [before - after for before, after in zip(unpruned, pruned, strict=True)]
    for left in reversed(range(len(gains) - 1)):
        low, high = gains[left], gains[left + 1]
        if (low > 0) != (high > 0):
            at = lengths[left] + (lengths[left + 1] - lengths[left]) * low / (low - high)
            return BreakEven(FROM if high > 0 else UP_TO, at, (lengths[0], lengths[-1]))
    return BreakEven(ALWAYS if gains[-1] > 0 else NEVER, None, (lengths[0], lengths[-1]))


def over_new_tokens(prefill: tuple[float, float], token: tuple[float, float]) -> BreakEven:
    """Return from how many generated tokens on (or up to how many) the pruned model answers sooner.

    Args:
        prefill: seconds up to the first token, unpruned and pruned.
        token: seconds for every further token, unpruned and pruned.
    """
    ahead, each = prefill[0] - prefill[1], token[0] - token[1]
    if ahead > 0 and each >= 0:
        return BreakEven(ALWAYS)
    if ahead <= 0 and each <= 0:
        return BreakEven(NEVER)
    return BreakEven(FROM if each > 0 else UP_TO, 1 - ahead / each)


def over_cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every method, batch size and kernel with at least two lengths, where its prefill begins to win."""
    found = []
    for batch, kernel in dict.fromkeys((row["batch"], row["kernel"]) for row in rows if row["tokens"] is not None):
        line = sorted(
            (row for row in rows if (row["batch"], row["kernel"]) == (batch, kernel) and row["status"] == OK),
            key=lambda row: row["visual_tokens"],
        )
        medians = [
            (
                row["visual_tokens"],
                {one["method"]: one["prefill_seconds"]["median"] for one in row["methods"] if one["status"] == OK},
            )
            for row in line
        ]
        for label in dict.fromkeys(label for _, by_label in medians for label in by_label if label != NONE):
            both = [(n, times[NONE], times[label]) for n, times in medians if NONE in times and label in times]
            if len(both) < 2:
                continue
            lengths, unpruned, pruned = zip(*both, strict=True)
            ends = over_lengths(lengths, unpruned, pruned)
            found.append({"method": label, "batch": batch, "kernel": kernel, **ends.to_dict()})
    return found
