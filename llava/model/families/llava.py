"""LLaVA-1.5 (`LlavaForConditionalGeneration` of transformers).

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id`, and of `config.vision_config` the image and patch sizes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.errors import CheckpointError
from llava.model.families.base import Family

if TYPE_CHECKING:
    from llava.model.processing.llava import LlavaProcessor

CLASS_TOKEN_TOWERS = ("clip_vision_model",)


class Llava(Family):
    """Every image has the same number of visual tokens, one per patch of the vision tower."""

    name: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    title: ClassVar[str] = "LLaVA-1.5 (llava-hf/llava-1.5-7b-hf)"
    transformers_class: ClassVar[str] = "LlavaForConditionalGeneration"
    token_by_token: ClassVar[bool] = True

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> "LlavaProcessor":
        from llava.model.processing.llava import LlavaProcessor

        return LlavaProcessor(tokenizer, **image_settings(folder, model.config, tokenizer), device=model.device)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> int | None:
        vision = model.config.vision_config
        if not (getattr(vision, "image_size", None) and getattr(vision, "patch_size", None)):
            return super().image_lengths(model, inputs)
        class_token = model.config.vision_feature_select_strategy == "full"
        return (vision.image_size // vision.patch_size) ** 2 + class_token


def image_settings(folder: Path, config: Any, tokenizer: Any) -> dict[str, Any]:
    """Return how images are prepared, from the model's and the preprocessor's configs.

    Raises:
        CheckpointError: the preprocessor's mean and deviation are not there, or tokenizer and model disagree.
    """
    from llava.model.checkpoints import image_processor_config

    vision = config.vision_config
    # The feature strategy "default" drops the tower's first token, which is the class token where there is one.
    n_visual = (vision.image_size // vision.patch_size) ** 2
    n_visual += (vision.model_type in CLASS_TOKEN_TOWERS) - (config.vision_feature_select_strategy == "default")
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows}.")
    image = image_processor_config(folder)
    try:
        mean, std = image["image_mean"], image["image_std"]
    except KeyError as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
    return {
        "image_size": vision.image_size,
        "image_mean": mean,
        "image_std": std,
        "n_visual": n_visual,
        "image_token_id": config.image_token_id,
    }
