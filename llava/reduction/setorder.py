"""The order in which CPython iterates a set of integers, computed for many lists at once on any device.

The released DART code puts its pivots into a Python set and claims tokens in the set's iteration order, so the result
depends on CPython's hash table. The table is re-enacted here with tensors: integers hash to themselves, collisions
probe nine neighbours and then jump, and the table grows when three fifths of it are filled (Objects/setobject.c,
unchanged since CPython 3.7).
"""

from functools import lru_cache

import torch
from torch import Tensor

from llava.reduction.tensors import to_device

SMALLEST_TABLE = 8
LINEAR_PROBES = 9
PERTURB_SHIFT = 5
VALUE_BITS = 32


def cpython_set_order(values: Tensor) -> Tensor:
    """Order in which `set(row)` is iterated, for every row.

    Args:
        values: (R, P) distinct integers in [0, 2**32), each row in the order of insertion.

    Returns:
        (R, P) positions: `values.gather(1, positions)` is each row in the order of iteration.
    """
    count = values.shape[1]
    table = _Table(values, SMALLEST_TABLE)
    for n in range(count):
        table.insert(torch.full_like(values[:, 0], n))
        if 5 * (n + 1) >= 3 * (table.size - 1):
            stored = table.in_slot_order(n + 1)
            table = _Table(values, _size_for(n + 1))
            for column in stored.unbind(1):
                table.insert(column)
    return table.in_slot_order(count)


class _Table:
    """R open-addressing tables of one size; a slot holds the position of a value in its row, or -1."""

    def __init__(self, values: Tensor, size: int):
        self.size = size
        self.slots = values.new_full((values.shape[0], size), -1)
        self.probes = _probes(values, size)

    def insert(self, position: Tensor) -> None:
        """Put one value per row (given by its position, (R,)) into the first free slot of its probe sequence."""
        width = self.probes.shape[-1]
        sequence = self.probes.gather(1, position[:, None, None].expand(-1, 1, width)).squeeze(1)
        first_free = (self.slots.gather(1, sequence) >= 0).to(torch.int8).argmin(dim=1, keepdim=True)
        self.slots.scatter_(1, sequence.gather(1, first_free), position[:, None])

    def in_slot_order(self, count: int) -> Tensor:
        """Return the (R, count) stored positions from the first slot to the last."""
        occupied_first = (self.slots < 0).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
        return self.slots.gather(1, occupied_first)


def _size_for(count: int) -> int:
    size = SMALLEST_TABLE
    while size <= 4 * count:
        size *= 2
    return size


def _probes(values: Tensor, size: int) -> Tensor:
    """(R, P) -> (R, P, M) slots to try, in order: each jump, then its neighbours if they fit before the table's end."""
    shifts, factors, constants, neighbours = _jump_tables(size, values.device)
    shifted = (values[..., None] >> shifts) & (size - 1)
    jumps = ((shifted[..., None, :] * factors).sum(-1) + constants) & (size - 1)
    fits = jumps + LINEAR_PROBES <= size - 1
    return (jumps[..., None] + neighbours * fits[..., None]).flatten(-2)


@lru_cache(maxsize=16)
def _jump_tables(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients of the unrolled recurrence i <- 5 i + 1 + w, w <- w >> 5, started at i = w = value.

    i_t = 5^t value + (5^t - 1) / 4 + sum over s = 1..t of 5^(t-s) (value >> 5 s), all modulo the table's size. Once w
    is used up the recurrence visits every slot within `size` jumps, so `size` more jumps always find a free one.
    """
    n_shifts = -(-VALUE_BITS // PERTURB_SHIFT)
    factors, constants = [], []
    for jump in range(n_shifts + size):
        factors.append([pow(5, jump - s, size) if s <= jump else 0 for s in range(n_shifts + 1)])
        constants.append((5**jump - 1) // 4 % size)
    shifts = [PERTURB_SHIFT * s for s in range(n_shifts + 1)]
    neighbours = range(LINEAR_PROBES + 1)
    return (
        to_device(shifts, device),
        to_device(factors, device),
        to_device(constants, device),
        to_device(list(neighbours), device),
    )
