"""Rotary tables for layers after a cut: the survivors' own, or those of positions counted anew without gaps.

Touches, besides the tables handed to the layers, `decoder.rotary_emb` (only after a cut that renumbers).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from llava.errors import UnsupportedModel
from llava.model.layout import Layout
from llava.model.masks import layer_type
from llava.model.stages import Stage
from llava.reduction.base import AUTO, RENUMBERED, Reduction
from llava.reduction.tensors import to_device


def renumbers(method: Reduction, config: Any) -> bool:
    """Whether the method counts positions anew on this model.

    Raises:
        UnsupportedModel: it must, but visual tokens have positions of several dimensions here.
    """
    policy = getattr(method, "position_policy", None)
    if policy not in (AUTO, RENUMBERED):
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "mrope_section" not in rope:
        return True
    if policy == AUTO:
        return False
    raise UnsupportedModel(
        f"positions='{RENUMBERED}' cannot be used with {type(config).__name__}: its visual tokens have a time, a row "
        "and a column, which cannot be counted anew without gaps. Give positions='original'."
    )


def compact_positions(stage: Stage, layout: Layout, positions: Tensor) -> Tensor:
    """(B, S) positions of a stage without gaps, beginning where the sample began.

    Args:
        positions: (B, N) of the prompt's columns.
    """
    valid = torch.ones_like(stage.index, dtype=torch.bool) if stage.valid is None else stage.valid
    return ends(layout, positions)[0][:, None] + (valid.long().cumsum(1) - 1).clamp_min(0)


def shift_of(layout: Layout, positions: Tensor, counts: list[int]) -> Tensor:
    """(B,) how much smaller positions get at the end of the samples when `counts` columns of each are left."""
    first, last = ends(layout, positions)
    return last - first + 1 - to_device(counts, positions.device)


def ends(layout: Layout, positions: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) positions of the first and the last real column of every sample."""
    real = layout.real.to(torch.int8)
    first, last = real.argmax(1), real.shape[1] - 1 - real.flip(1).argmax(1)
    return positions.gather(1, first[:, None])[:, 0], positions.gather(1, last[:, None])[:, 0]


def tables_by_type(decoder: Any) -> bool:
    """Whether a text model's rotary tables depend on the kind of a layer's attention."""
    return "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters


def rotary_tables(decoder: Any, number: int, hidden: Tensor, positions: Tensor, by_type: bool) -> tuple[Tensor, ...]:
    """Rotary tables (cos, sin) of (B, S) positions for layer `number` of a text model; `hidden` tells the dtype."""
    kinds = {"layer_type": layer_type(decoder.config, number)} if by_type else {}
    return decoder.rotary_emb(hidden, positions, **kinds)
