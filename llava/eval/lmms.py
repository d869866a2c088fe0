"""Entry point of the lmms-eval plug-in: tells lmms-eval the model `llava_dart` (`lmms_model.py`)."""

from typing import Any


def manifest() -> Any:
    """Return what lmms-eval's entry-point group `lmms_eval.models` asks for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="llava_dart", simple_class_path="llava.eval.lmms_model.PrunedModel")
