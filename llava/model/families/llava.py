"""LLaVA-1.5 (`LlavaForConditionalGeneration` of transformers), in transformers' format or the original one.

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id`, and of `config.vision_config` the image and patch sizes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.errors import CheckpointError
from llava.model.families.base import Family, Original

if TYPE_CHECKING:
    from llava.model.processing.llava import LlavaProcessor

CLASS_TOKEN_TOWERS = ("clip_vision_model",)


class Llava(Family):
    """Every image has the same number of visual tokens, one per patch of the vision tower."""

    name: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    title: ClassVar[str] = "LLaVA-1.5 (llava-hf/llava-1.5-7b-hf, liuhaotian/llava-v1.5-7b)"
    inputs: ClassVar[tuple[str, ...]] = (*Family.inputs, "video")
    limits: ClassVar[str] = "a video is one picture of its frames"
    transformers_class: ClassVar[str] = "LlavaForConditionalGeneration"
    tiled: ClassVar[bool] = False
    token_by_token: ClassVar[bool] = True

    def recognises(self, config: Mapping[str, Any]) -> bool:
        from llava.model import original_llava

        if original_llava.is_original(config):
            return original_llava.is_tiled(config) == self.tiled
        return super().recognises(config)

    def tokenizer(self, folder: Path, config: Mapping[str, Any]) -> Any:
        from llava.model import original_llava

        tokenizer = super().tokenizer(folder, config)
        return original_llava.add_tokens(tokenizer) if original_llava.is_original(config) else tokenizer

    def original(self, folder: Path, config: Mapping[str, Any], tokenizer: Any) -> Original | None:
        from llava.model import original_llava

        if not original_llava.is_original(config):
            return None
        return original_llava.read_original(folder, config, tokenizer)

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> "LlavaProcessor":
        from llava.model.processing.llava import LlavaProcessor

        return LlavaProcessor(tokenizer, **self.processor_settings(folder, config, model, tokenizer))

    def processor_settings(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> dict[str, Any]:
        """Return how prompts and images are prepared, from the model's and the preprocessor's configs.

        Raises:
            CheckpointError: the preprocessor's mean and deviation are not there, or tokenizer and model disagree.
        """
        from llava.model.conversation import template_of

        vision, text = model.config.vision_config, model.config.text_config
        # The feature strategy "default" drops the tower's first token, which is the class token where there is one.
        n_visual = (vision.image_size // vision.patch_size) ** 2
        n_visual += vision.model_type in CLASS_TOKEN_TOWERS
        n_visual -= model.config.vision_feature_select_strategy == "default"
        if len(tokenizer) > text.vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {text.vocab_size}."
            )
        return {
            **_statistics(folder, config),
            "image_size": vision.image_size,
            "n_visual": n_visual,
            "image_token_id": model.config.image_token_id,
            "template": template_of(tokenizer.get_vocab(), text.model_type),
            "device": model.device,
        }

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Any:
        vision = model.config.vision_config
        if not (getattr(vision, "image_size", None) and getattr(vision, "patch_size", None)):
            return super().image_lengths(model, inputs)
        class_token = model.config.vision_feature_select_strategy == "full"
        return (vision.image_size // vision.patch_size) ** 2 + class_token


def _statistics(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean and deviation of the channels, from the checkpoint or from the vision tower it names."""
    from llava.model import original_llava
    from llava.model.checkpoints import image_processor_config
    from llava.model.clip_tower import find_tower

    if original_llava.is_original(config) and not (folder / "preprocessor_config.json").is_file():
        image = find_tower(folder, config, with_weights=False).statistics()
    else:
        image = image_processor_config(folder)
    try:
        return {name: image[name] for name in ("image_mean", "image_std")}
    except KeyError as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
