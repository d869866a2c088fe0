"""One thin adapter per model family, found by the model's `config.model_type`."""

from typing import Any

from llava.errors import UnsupportedModel
from llava.model.families.base import Family
from llava.model.families.llava import Llava

FAMILIES: tuple[Family, ...] = (Llava(),)


def family_of(model: Any) -> Family:
    """Return the adapter of a loaded model.

    Raises:
        UnsupportedModel: no adapter for this kind of model; the message lists those there are.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    raise UnsupportedModel(
        f"Cannot prune {type(model).__name__} (model type {kind!r}). Supported model types: {known}. "
        "Give the whole model with its language head, as llava.load returns it."
    )
