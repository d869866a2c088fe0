"""What the surgery has to know about a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn


class Family:
    """Adapter of a model family; the defaults fit most vision-language models of transformers.

    A new family is a subclass in its own file, added to `llava.model.families.FAMILIES`.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]

    def body(self, model: Any) -> nn.Module:
        """The module that turns token ids and images into hidden states (the model without its language head)."""
        return model.model

    def decoder(self, model: Any) -> nn.Module:
        """The text model: `layers`, final `norm`, `config`."""
        return self.body(model).language_model

    def placeholders(self, model: Any) -> tuple[int, ...]:
        """Token ids that stand for visual tokens in the prompt."""
        ids = (getattr(model.config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return tuple(token for token in ids if token is not None)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Sequence[int] | int | None:
        """Visual tokens per image: one number for all, a list over the images of the batch, or None if not known.

        None makes every unbroken run of placeholders one image. Features encoded ahead (transformers' generate does)
        tell the lengths.
        """
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("image")
        features = getattr(encoded, "pooler_output", None)
        return [len(feature) for feature in features] if isinstance(features, (list, tuple)) else None
