"""Base of the methods that merge tokens in several blocks of the vision tower, and how many go in each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llava.reduction.base import RENUMBERED
from llava.reduction.checks import option
from llava.reduction.image import Encoder, TowerInfo


@dataclass(frozen=True)
class BlockMerging(Encoder):
    """A method that removes a number of tokens in each of several blocks.

    Args:
        keep: visual tokens left per image, shared evenly by its tiles; or a fraction in (0, 1] of each tile's tokens.
            The number removed per block follows from it, as even as possible.
        positions: only "renumbered": merged tokens stand nowhere special.
        r: tokens removed per block, instead of `keep`.
    """

    r: int | None = option(None, low=0)

    depends_on_question: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "320": {"keep": 1 / 9},  # LLaVA-NeXT: 64 of each tile's 576, hence 320 for five tiles
    }

    def problems(self) -> list[str]:
        if self.positions == RENUMBERED:
            return []
        return ["positions='original' is not possible: merged tokens stand nowhere. Use 'renumbered'."]

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        if self.r is not None or (n_tiles > 1 and isinstance(self.keep, float)):
            return None
        asked = self.asked(n_visual)
        return asked if asked == n_visual else max(1, asked // n_tiles) * n_tiles

    def kept_per_tile(self, tower: TowerInfo) -> int:
        """What `keep` leaves of a tile's tokens."""
        n = tower.side[0] * tower.side[1]
        return max(1, int(n * self.keep) if isinstance(self.keep, float) else self.keep // tower.tiles_per_image)


def limited(schedule: Sequence[int], length: int, protected: int = 1) -> list[int]:
    """What is really removed: at most half of the unprotected tokens of each layer.

    Args:
        schedule: tokens to remove per layer.
        length: tokens at the start, protected ones included.
    """
    removed = []
    for r in schedule:
        removed.append(max(min(r, (length - protected) // 2), 0))
        length -= removed[-1]
    return removed


def exact_schedule(n_layers: int, length: int, remove: int, protected: int = 1) -> list[int] | None:
    """The most even schedule that removes exactly `remove` tokens within the limits, larger numbers first.

    Returns:
        L numbers, or None if even halving in every layer does not remove so many.
    """
    if n_layers < 1:
        return None if remove else []
    for level in range(remove // n_layers, length + 1):
        schedule = limited([level] * n_layers, length, protected)
        surplus = sum(schedule) - remove
        if surplus >= 0:
            return [r - (layer >= n_layers - surplus) for layer, r in enumerate(schedule)]
    return None
