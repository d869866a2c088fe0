"""LLaVA-NeXT, also called LLaVA-1.6 (`LlavaNextForConditionalGeneration`), in transformers' or the original format.

Touches: what LLaVA-1.5's adapter touches, `config.image_grid_pinpoints` (put into the official order) and, of the
inputs, `image_sizes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llava.model import tiling
from llava.model.families.base import Family
from llava.model.families.llava import Llava
from llava.model.families.tower import Tiling
from llava.model.tiling import Size

if TYPE_CHECKING:
    from llava.model.processing.llava_next import LlavaNextProcessor


class LlavaNext(Llava):
    """An image is seen whole and in tiles; the number of its visual tokens depends on its shape."""

    name: ClassVar[str] = "llava_next"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    title: ClassVar[str] = "LLaVA-NeXT (llava-hf/llava-v1.6-vicuna-7b-hf, liuhaotian/llava-v1.6-vicuna-7b)"
    budget_rule: ClassVar[str] = "llava_next"
    transformers_class: ClassVar[str] = "LlavaNextForConditionalGeneration"
    tiled: ClassVar[bool] = True
    packing: ClassVar[str] = "pack_image_features"

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> LlavaNextProcessor:
        from llava.model.processing.llava_next import LlavaNextProcessor

        listed = tiling.pairs(folder, config.get("image_grid_pinpoints", model.config.image_grid_pinpoints))
        resolutions = official_resolutions(listed, original="mm_vision_tower" in config)
        model.config.image_grid_pinpoints = [[height, width] for width, height in resolutions]
        vision = model.config.vision_config
        return LlavaNextProcessor(
            tokenizer,
            resolutions=resolutions,
            patches=vision.image_size // vision.patch_size,
            **self.processor_settings(folder, config, model, tokenizer),
        )

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Any:
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return Family.image_lengths(self, model, inputs)
        n_base = super().image_lengths(model, inputs)
        return [tiling.packed_length(n_base, shown) for shown in _shown(model, sizes)]

    def newlines(self, model: Any, inputs: dict[str, Any]) -> list[list[int]] | None:
        sizes = inputs.get("image_sizes")
        if sizes is None:
            sizes = _sizes_of_encoded(inputs)
        if sizes is None:
            return self._newlines_among_features(model, inputs)
        n_base = super().image_lengths(model, inputs)
        return [tiling.newline_offsets(n_base, shown) for shown in _shown(model, sizes)]

    def _newlines_among_features(self, model: Any, inputs: dict[str, Any]) -> list[list[int]] | None:
        """Find the newline vector in features encoded ahead, as generate() hands them on without the images' sizes."""
        features = getattr((inputs.get("mm_encoder_outputs") or {}).get("image"), "pooler_output", None)
        if not isinstance(features, (list, tuple)) or not features:
            return None
        lengths, vector = [len(image) for image in features], self.body(model).image_newline
        ends = torch.cat([(image == vector.to(image)).all(-1) for image in features]).cpu()  # waits for the device once
        return [image.nonzero().squeeze(1).tolist() for image in ends.split(lengths)]

    def tilings(self, model: Any, inputs: dict[str, Any], kind: str = "image") -> list[Tiling] | None:
        sizes, side = inputs.get("image_sizes"), self.tile_side(model)
        if sizes is None or side is None:
            return None
        body: Any = self.body(model)
        pixels, n_patches = model.config.vision_config.image_size, side[0] * side[1]
        strategy, newline = model.config.vision_feature_select_strategy, body.image_newline
        found = []
        for height, width in torch.as_tensor(sizes).tolist():
            resolutions = [(across, down) for down, across in model.config.image_grid_pinpoints]
            across, down = (n // pixels for n in tiling.best_resolution((width, height), resolutions))
            n_tiles = 1 + across * down
            # The model itself says where tokens go: it is given their numbers instead of their features.
            numbers = torch.arange(n_tiles * n_patches, dtype=torch.float32, device=newline.device)
            packed, _ = body.pack_image_features(
                [numbers.view(n_tiles, -1, 1)], torch.tensor([[height, width]]), strategy, -torch.ones_like(newline[:1])
            )
            found.append(Tiling(n_tiles, (down, across), (height, width), newline, packed[0][:, 0].long()))
        return found


def _sizes_of_encoded(inputs: dict[str, Any]) -> Any:
    """The images' sizes where the surgery noted them with their features (`llava.model.encoding`), one for each."""
    encoded: Any = (inputs.get("mm_encoder_outputs") or {}).get("image")
    sizes = getattr(encoded, "image_sizes", None)
    return sizes if sizes is not None and len(sizes) == len(encoded.pooler_output) else None


def official_resolutions(listed: Sequence[Size], *, original: bool) -> list[Size]:
    """Return the canvases as (width, height), in the order in which the official code tries them.

    The list of a converted checkpoint is the original one, copied: transformers reads it as heights and widths, which
    changes only the order as long as every canvas is there both upright and lying. Any other list is meant as
    transformers reads it.
    """
    copied = {(b, a) for a, b in listed} == set(listed)
    return list(listed) if original or copied else [(width, height) for height, width in listed]


def _shown(model: Any, sizes: Any) -> list[Size]:
    """Columns and rows of every image's map in the prompt, as the model computes them from (height, width)."""
    config, vision = model.config, model.config.vision_config
    resolutions = [(width, height) for height, width in config.image_grid_pinpoints]
    patches = vision.image_size // vision.patch_size
    given = [(width, height) for height, width in (sizes.tolist() if hasattr(sizes, "tolist") else sizes)]
    return [tiling.shown_in(size, resolutions, vision.image_size, patches) for size in given]
