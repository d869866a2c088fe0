"""The arguments of a layer after a cut: its own mask, and the rotary tables of the columns it sees."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from llava.model.masks import layer_type, stage_mask
from llava.model.passes import Pass
from llava.model.positions import compact_positions, rotary_tables
from llava.model.stages import Stage, take


def fitted(
    decoder: Any, by_type: bool, kwargs: dict[str, Any], number: int, hidden: Tensor, running: Pass
) -> dict[str, Any]:
    """Return the arguments of a layer for the columns it works on; those it was called with while it sees the prompt.

    Args:
        decoder: the text model.
        by_type: whether its rotary tables depend on the kind of a layer's attention.
        kwargs: arguments the text model calls the layer with, for the whole prompt or for new tokens.
        number: the layer.
        hidden: (B, S, D) its input.
        running: what the layers of this pass share; masks and tables are made once per stage and kept there.
    """
    stage = running.state.at(number)
    if stage is None:
        return kwargs
    key = (id(stage), layer_type(decoder.config, number))
    if key not in running.masks:
        given = kwargs.get("attention_mask") if running.prefill else None
        running.masks[key] = stage_mask(decoder.config, number, hidden, stage, kwargs.get("past_key_values"), given)
    # position_ids would only make flash attention look for packed sequences, which gathered positions resemble.
    changed = {**kwargs, "attention_mask": running.masks[key], "position_ids": None}
    if running.prefill or stage.shift is not None:
        changed["position_embeddings"] = _tables(decoder, by_type, kwargs, number, hidden, stage, running)
    return changed


def _tables(
    decoder: Any, by_type: bool, kwargs: dict[str, Any], number: int, hidden: Tensor, stage: Stage, running: Pass
) -> Any:
    """Rotary tables are shared by layers of one stage and one kind, so they are made once."""
    given = kwargs["position_embeddings"]
    for known, source, made in running.rotary:
        if known is stage and source is given[0]:
            return made
    if stage.shift is None:
        made = tuple(take(table, stage.source) for table in given)
    elif running.prefill:
        positions = compact_positions(stage, running.state.layout, running.positions)
        made = rotary_tables(decoder, number, hidden, positions, by_type)
    else:
        positions = kwargs["position_ids"] - stage.shift[:, None]
        made = rotary_tables(decoder, number, hidden, positions, by_type)
    running.rotary.append((stage, given[0], made))
    return made
