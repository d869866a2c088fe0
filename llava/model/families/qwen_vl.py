"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (`Qwen2VLForConditionalGeneration` and its successors in transformers).

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`, and of Qwen3-VL
`_deepstack_process`), the layers' `self_attn`, `config.image_token_id`, `config.video_token_id`,
`config.vision_config.spatial_merge_size`, `get_rope_index`, and the inputs `image_grid_thw` and `video_grid_thw`.

Positions need no care: multimodal rotary tables are made from the full prompt and gathered at the cut, and `generate`
counts on from the full prompt, so survivors and generated tokens have the positions of an unpruned run.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from llava.errors import CheckpointError, UnsupportedModel
from llava.model.families.base import Family
from llava.model.layout import Lengths

if TYPE_CHECKING:
    from llava.model.processing.qwen_vl import PixelLimits, Qwen2VLProcessor

ENCODED = "mm_encoder_outputs"  # how newer versions of transformers take features encoded ahead
SMALLEST, LARGEST = 4, 1280  # visual tokens of an image where the checkpoint does not tell (transformers' defaults)


class Qwen2VL(Family):
    """Images and videos of any size; a whole video counts as one image."""

    name: ClassVar[str] = "qwen2_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    title: ClassVar[str] = "Qwen2-VL (Qwen/Qwen2-VL-7B-Instruct)"
    inputs: ClassVar[tuple[str, ...]] = ("image", "several images", "video")
    budget_rule: ClassVar[str] = "qwen2_vl"
    transformers_class: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    processor_class: ClassVar[str] = "Qwen2VLProcessor"
    """Name of the processor's class in `llava.model.processing.qwen_vl`."""

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> Qwen2VLProcessor:
        from llava.model.checkpoints import image_processor_config
        from llava.model.processing import qwen_vl
        from llava.model.processing.patches import PatchGrid

        image, vision = image_processor_config(folder), model.config.vision_config
        rows = model.config.text_config.vocab_size
        if len(tokenizer) > rows:
            raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows}.")
        try:
            mean, std = tuple(image["image_mean"]), tuple(image["image_std"])
        except KeyError as error:
            raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
        grid = PatchGrid(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, mean, std)
        told = {"patch_size": grid.patch, "merge_size": grid.merge, "temporal_patch_size": grid.temporal}
        for name, value in told.items():
            if image.get(name, value) != value:
                raise CheckpointError(
                    f"{folder}: {name} is {image[name]} in preprocessor_config.json but {value} in config.json."
                )
        processor = getattr(qwen_vl, self.processor_class)(
            tokenizer, grid=grid, limits=_limits(image, grid.factor), device=model.device
        )
        wanted = (model.config.image_token_id, model.config.video_token_id)
        if processor.placeholders != wanted:
            raise CheckpointError(
                f"{folder}: the tokenizer's image and video placeholders have the ids {processor.placeholders}, but "
                f"config.json says {wanted}."
            )
        return processor

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> dict[int, Lengths]:
        merged = model.config.vision_config.spatial_merge_size**2
        encoded = inputs.get(ENCODED) or {}  # instead of the grids, where `generate` encoded ahead
        lengths: dict[int, Lengths] = {}
        for kind in ("image", "video"):
            grid, features = inputs.get(f"{kind}_grid_thw"), getattr(encoded.get(kind), "pooler_output", None)
            known = None if features is None else [len(feature) for feature in features]
            lengths[getattr(model.config, f"{kind}_token_id")] = (
                known if grid is None else (grid.prod(-1) // merged).tolist()
            )
        return lengths

    # ------------------------------------------------------------------------------------- before the language model

    def positions(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        wanted = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        given = {name: inputs[name] for name in (*wanted, "attention_mask") if inputs.get(name) is not None}
        body: Any = self.body(model)
        return body.get_rope_index(**given)[0]

    def n_images(self, inputs: dict[str, Any], kind: str = "image") -> int:
        return len(inputs[f"{kind}_grid_thw"])

    def one_image(self, inputs: dict[str, Any], number: int, kind: str = "image") -> dict[str, Any]:
        pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
        grid = inputs[f"{kind}_grid_thw"]
        rows = inputs[pixels].split(grid.prod(-1).tolist())[number]
        return {**inputs, pixels: rows, f"{kind}_grid_thw": grid[number : number + 1]}


class Qwen25VL(Qwen2VL):
    """As Qwen2-VL; the seconds between the frames of a video go into the positions."""

    name: ClassVar[str] = "qwen2_5_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    title: ClassVar[str] = "Qwen2.5-VL (Qwen/Qwen2.5-VL-7B-Instruct)"
    transformers_class: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    processor_class: ClassVar[str] = "Qwen25VLProcessor"


class Qwen3VL(Qwen2VL):
    """As Qwen2-VL, with features of earlier vision layers added in the first decoder layers, and the time written
    before every frame of a video: its visual tokens stand apart, but are one selection problem."""

    name: ClassVar[str] = "qwen3_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    title: ClassVar[str] = "Qwen3-VL (Qwen/Qwen3-VL-8B-Instruct)"
    transformers_class: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    processor_class: ClassVar[str] = "Qwen3VLProcessor"
    adds_between_layers: ClassVar[str] = "_deepstack_process"

    def with_features(self, output: Any, features: list[Tensor], rows: list[Tensor] | None) -> Any:
        if ENCODED not in signature(self.model_class().forward).parameters:
            raise UnsupportedModel(
                "Qwen3-VL adds features of earlier vision layers to every visual token, which this version of "
                "transformers takes from the pixels only. Type `pip install -U transformers`, or take a method that "
                "acts inside the language model (dart, fastv)."
            )
        if rows is None:
            raise UnsupportedModel(
                "Qwen3-VL adds features of earlier vision layers to every visual token, so tokens cannot be merged "
                "before the language model. Take a method that only selects (divprune, uniform)."
            )
        output.deepstack_features = [
            [own[row.to(own.device)] for own, row in zip(layer, rows, strict=True)]
            for layer in output.deepstack_features
        ]
        return super().with_features(output, features, rows)


def _limits(image: Mapping[str, Any], factor: int) -> PixelLimits:
    """The limits of an image's pixels, under the old names or the new ones."""
    from llava.model.processing.qwen_vl import PixelLimits

    size = image.get("size") or {}
    smallest = image.get("min_pixels") or size.get("shortest_edge") or SMALLEST * factor**2
    largest = image.get("max_pixels") or size.get("longest_edge") or LARGEST * factor**2
    return PixelLimits(smallest, largest)
