"""Video-LLaVA (`VideoLlavaForConditionalGeneration` of transformers), the converted checkpoint.

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id`, `config.video_token_id`, `config.video_seq_length`, and of `config.vision_config`
the image and patch sizes.

The frames of a video stand back to back, each with its class token; the class tokens can be pruned like the patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.errors import CheckpointError
from llava.model.families.base import Family
from llava.model.layout import Lengths

if TYPE_CHECKING:
    from llava.model.processing.video_llava import VideoLlavaProcessor

ORIGINAL_KEY = "mm_video_tower"  # in config.json of the original checkpoint

IMAGE_NAMES = ("pixel_values", "pixel_values_images")  # newer and older versions of transformers


class VideoLlava(Family):
    """Images and videos have fixed numbers of visual tokens; a video of 8 frames is one block, pruned as a whole."""

    name: ClassVar[str] = "video_llava"
    model_types: ClassVar[tuple[str, ...]] = ("video_llava",)
    title: ClassVar[str] = "Video-LLaVA (LanguageBind/Video-LLaVA-7B-hf)"
    inputs: ClassVar[tuple[str, ...]] = ("image", "several images", "video")
    transformers_class: ClassVar[str] = "VideoLlavaForConditionalGeneration"

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return super().recognises(config) or ORIGINAL_KEY in config

    def tokenizer(self, folder: Path, config: Mapping[str, Any]) -> Any:
        if ORIGINAL_KEY in config:
            raise CheckpointError(
                f"{folder} is Video-LLaVA in its original format, whose towers are separate repositories: give the "
                "converted checkpoint (LanguageBind/Video-LLaVA-7B-hf)."
            )
        return super().tokenizer(folder, config)

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> VideoLlavaProcessor:
        from llava.model.checkpoints import image_processor_config
        from llava.model.processing.video_llava import VideoLlavaProcessor

        shape, image, n_frame = model.config, image_processor_config(folder), _frame_tokens(model.config)
        n_frames, rest = divmod(shape.video_seq_length, n_frame)
        if rest or not n_frames:
            raise CheckpointError(
                f"{folder}: video_seq_length is {shape.video_seq_length} in config.json, no multiple of the {n_frame} "
                "visual tokens of a frame."
            )
        rows = shape.text_config.vocab_size
        if len(tokenizer) > rows:
            raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows}.")
        try:
            mean, std = image["image_mean"], image["image_std"]
        except KeyError as error:
            raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
        return VideoLlavaProcessor(
            tokenizer,
            image_size=shape.vision_config.image_size,
            image_mean=mean,
            image_std=std,
            n_visual=n_frame - (shape.vision_feature_select_strategy == "default"),
            n_frame=n_frame,
            n_frames=n_frames,
            image_token_id=shape.image_token_id,
            video_token_id=shape.video_token_id,
            images=next(name for name in IMAGE_NAMES if name in signature(model.forward).parameters),
            device=model.device,
        )

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> dict[int, Lengths]:
        videos, frame = inputs.get("pixel_values_videos"), _frame_tokens(model.config)
        n_frames = model.config.video_seq_length // frame if videos is None else videos.shape[1]
        class_token = model.config.vision_feature_select_strategy == "full"
        return {model.config.image_token_id: frame - 1 + class_token, model.config.video_token_id: n_frames * frame}


def _frame_tokens(config: Any) -> int:
    """Visual tokens of a frame: its patches and the class token."""
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
