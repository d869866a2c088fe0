"""What works with what, asked from the classes: every family's model is built without weights, and methods are tried.

Nothing is typed by hand: a family or method that is registered appears, and a refusal at the door is what the table
says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llava.errors import UnsupportedModel
from llava.model.families import FAMILIES
from llava.model.families.base import Family
from llava.model.pruning import Pruning
from llava.reduction import registry

N_LAYERS, N_TOWER_LAYERS = 16, 6  # of the models built to be asked: enough for the layers methods name by default
LAYERS, TOWER_LAYERS = ("num_hidden_layers", "num_layers"), ("num_hidden_layers", "depth")
KERNELS = {"eager": None, "sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}


@dataclass(frozen=True)
class Support:
    """What works with one family.

    Args:
        family: its adapter.
        kernels: attention kernels.
        refused: reason why a method cannot work, by the method's name; the others work.
    """

    family: Family
    kernels: tuple[str, ...]
    refused: dict[str, str]


def support(family: Family) -> Support:
    """Return what works with a family, decided by the same refusals that a user meets."""
    model = skeleton(family)
    refused = {}
    for name in registry.names():
        try:
            Pruning(registry.get(name)(), model).install().remove()
        except UnsupportedModel as error:
            refused[name] = str(error)
    kernels = tuple(name for name, flag in KERNELS.items() if flag is None or getattr(type(model), flag, False))
    return Support(family, kernels, refused)


def skeleton(family: Family) -> Any:
    """Return a model of the family with its default configuration, few layers, and no weights."""
    model_class = family.model_class()
    config = model_class.config_class()
    _shorten(config.get_text_config(), LAYERS, N_LAYERS)
    _shorten(config.vision_config, TOWER_LAYERS, N_TOWER_LAYERS)
    with torch.device("meta"):
        return model_class(config).eval()


def _shorten(config: Any, names: tuple[str, ...], n_layers: int) -> None:
    for name in names:
        if getattr(config, name, None) is not None:
            setattr(config, name, n_layers)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]


def table() -> str:
    """Return the support table in Markdown: families down, inputs, method stages and attention kernels across."""
    facts = [support(family) for family in FAMILIES]
    stages: dict[str, list[str]] = {}
    for name in registry.names():
        stage = registry.get(name).stage
        if stage and name != "none":
            stages.setdefault(stage, []).append(name)
    header = ["model", "inputs", "batch", *stages, "attention"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for fact in facts:
        family = fact.family
        inputs = ", ".join(family.inputs) + (f" ({family.limits})" if family.limits else "")
        cells = [_cell(names, fact.refused) for names in stages.values()]
        kernels = ", ".join(f"`{kernel}`" for kernel in fact.kernels)
        lines.append("| " + " | ".join([family.title, inputs, "any size", *cells, kernels]) + " |")
    notes = [f"- methods {stage}: {', '.join(f'`{name}`' for name in names)}" for stage, names in stages.items()]
    return "\n".join([*lines, "", *notes])


def _cell(names: list[str], refused: dict[str, str]) -> str:
    """The methods of one stage that work, as few words as possible."""
    works = [name for name in names if name not in refused]
    if len(works) == len(names):
        return "all"
    if not works:
        return "none"
    others = [name for name in names if name in refused]
    if len(others) < len(works):
        return "all but " + ", ".join(f"`{name}`" for name in others)
    return ", ".join(f"`{name}`" for name in works)
