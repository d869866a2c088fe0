"""One thin adapter per model family, found by the checkpoint's config.json or the model's `config.model_type`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError, UnsupportedModel
from llava.model.families.base import Family
from llava.model.families.gemma3 import Gemma3
from llava.model.families.internvl import InternVL
from llava.model.families.llava import Llava
from llava.model.families.llava_next import LlavaNext
from llava.model.families.minicpm_v import MiniCPMV
from llava.model.families.onevision import LlavaOnevision
from llava.model.families.qwen_vl import Qwen2VL, Qwen3VL, Qwen25VL
from llava.model.families.smolvlm import Idefics3, SmolVLM
from llava.model.families.video_llava import VideoLlava

FAMILIES: tuple[Family, ...] = (
    VideoLlava(),  # before LLaVA, whose model type its original checkpoints claim
    Llava(),
    LlavaNext(),
    MiniCPMV(),
    Qwen2VL(),
    Qwen25VL(),
    Qwen3VL(),
    LlavaOnevision(),
    InternVL(),
    SmolVLM(),
    Idefics3(),
    Gemma3(),
)


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


def family_for(folder: Path, config: Mapping[str, Any]) -> Family:
    """Return the adapter for a checkpoint.

    Args:
        folder: named in the error.
        config: its config.json.

    Raises:
        CheckpointError: of no supported kind; the message lists those there are.
    """
    for family in FAMILIES:
        if family.recognises(config):
            return family
    known = "; ".join(f"{', '.join(map(repr, family.model_types))}: {family.title}" for family in FAMILIES)
    raise CheckpointError(f"{folder} has model_type {config.get('model_type')!r}. Supported: {known}.")
