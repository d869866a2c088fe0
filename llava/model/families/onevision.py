"""LLaVA-OneVision in transformers' format (`LlavaOnevisionForConditionalGeneration`), images only.

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id`, `config.image_grid_pinpoints`, `config.vision_aspect_ratio`, the sizes of
`config.vision_config`, and the inputs `image_sizes` and `batch_num_images`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.model.families.base import Family
from llava.model.tokenizers import check_vocabulary

if TYPE_CHECKING:
    from llava.model.processing.onevision import OneVisionProcessor

LARGER = 1.1  # maps larger than allowed by this factor (in length) are shrunk, as in the official code


class LlavaOnevision(Family):
    """A single image is seen whole and in tiles whose rows end with a newline token; several images whole only."""

    name: ClassVar[str] = "llava_onevision"
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    title: ClassVar[str] = "LLaVA-OneVision (llava-hf/llava-onevision-qwen2-7b-ov-hf)"
    transformers_class: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    budget_rule: ClassVar[str] = "llava_next"
    images_together: ClassVar[str] = "an image is tiled only where it is the only one of its prompt"

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> OneVisionProcessor:
        from llava.model.processing.marked import image_processor
        from llava.model.processing.onevision import OneVisionProcessor

        check_vocabulary(folder, tokenizer, model)
        images = image_processor(folder, "LlavaOnevisionImageProcessor")
        n_visual = functools.partial(n_tokens, model.config)
        return OneVisionProcessor(tokenizer, images, n_visual=n_visual, device=model.device)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Any:
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return super().image_lengths(model, inputs)
        return [n_tokens(model.config, size, tiled) for size, tiled in _shown(inputs)]

    def newlines(self, model: Any, inputs: dict[str, Any]) -> list[list[int]] | None:
        if inputs.get("image_sizes") is None:
            return None
        found = []
        for size, tiled in _shown(inputs):
            n_base, (rows, columns) = _n_base(model.config), map_size(model.config, size)
            ends = [n_base + columns + row * (columns + 1) for row in range(rows)] if tiled else [n_base]
            found.append(ends)
        return found


def n_tokens(config: Any, size: tuple[int, int], tiled: bool) -> int:
    """Return the visual tokens of an image: the whole of it, its map of tiles with newlines, or one newline.

    Args:
        config: of the model.
        size: (height, width) of the image in pixels.
        tiled: whether it is the only image of its sample.
    """
    rows, columns = map_size(config, size)
    return _n_base(config) + (rows * (columns + 1) if tiled else 1)


def map_size(config: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the map of tiles as it enters the prompt: padding cut off, shrunk if it is too large.

    The grid is the one that transformers' model computes from the same (height, width).
    """
    from transformers.models.llava_onevision.modeling_llava_onevision import get_anyres_image_grid_shape

    height, width = size
    side = config.vision_config.image_size
    patches = side // config.vision_config.patch_size
    rows, columns = (n * patches for n in get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side))
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * columns / (most * patches**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > LARGER else (rows, columns)


def _n_base(config: Any) -> int:
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2


def _shown(inputs: dict[str, Any]) -> list[tuple[tuple[int, int], bool]]:
    """Size of every image of the batch, and whether it is shown in tiles."""
    sizes = [(height, width) for height, width in inputs["image_sizes"].tolist()]
    counts = inputs.get("batch_num_images")
    tiled = [True] * len(sizes) if counts is None else [n == 1 for n in counts.tolist() for _ in range(n)]
    return list(zip(sizes, tiled, strict=True))
