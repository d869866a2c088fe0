"""The processes that share a run, on one machine or several: started by `accelerate launch`, or just this one."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_WAIT = datetime.timedelta(days=7)
"""A process may be done long before the others; nobody gives up on them."""


def _alone(own: Any) -> list[Any]:
    return [own]


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Args:
        number: 0 for the process that writes the answers file and the results.
        count: processes in all.
        device: where this one computes; None when it is alone and may choose.
        gather: given this process's object, returns those of all processes in order; every process has to call it.
    """

    number: int = 0
    count: int = 1
    device: str | None = None
    gather: Callable[[Any], list[Any]] = _alone

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes results."""
        return self.number == 0


def processes(device: str | None = None) -> Processes:
    """Return the processes of this run, joined to each other where there are several.

    Args:
        device: device that was asked for; `cpu` joins the processes over the network instead of over the GPUs.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return Processes()
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    if state.num_processes == 1:
        return Processes(device=device)
    return Processes(state.process_index, state.num_processes, device or str(state.device), _gather)


def _gather(own: Any) -> list[Any]:
    import torch.distributed as dist

    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, own)
    return everybody
