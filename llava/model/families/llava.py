"""LLaVA-1.5 (`LlavaForConditionalGeneration` of transformers).

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id`, and of `config.vision_config` the image and patch sizes.
"""

from typing import Any, ClassVar

from llava.model.families.base import Family


class Llava(Family):
    """Every image has the same number of visual tokens, one per patch of the vision tower."""

    name: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> int | None:
        vision = model.config.vision_config
        if not (getattr(vision, "image_size", None) and getattr(vision, "patch_size", None)):
            return super().image_lengths(model, inputs)
        class_token = model.config.vision_feature_select_strategy == "full"
        return (vision.image_size // vision.patch_size) ** 2 + class_token
