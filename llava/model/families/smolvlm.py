"""SmolVLM, SmolVLM 2 and Idefics 3 (`SmolVLMForConditionalGeneration`, `Idefics3ForConditionalGeneration`).

Touches: `model.model` (body: `image_seq_len`), `model.model.text_model` (decoder: `layers`, `norm`, `config`), the
layers' `self_attn` and `config.image_token_id`. Sets `config.whole_image_token_id`, the id that precedes the last
tile of every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from llava.model.families.base import Family
from llava.model.tokenizers import check_vocabulary

if TYPE_CHECKING:
    from llava.model.processing.smolvlm import SmolVLMProcessor


class SmolVLM(Family):
    """The visual tokens of an image are the union of its tiles' runs; the markers between them are text."""

    name: ClassVar[str] = "smolvlm"
    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    title: ClassVar[str] = "SmolVLM (HuggingFaceTB/SmolVLM2-2.2B-Instruct)"
    transformers_class: ClassVar[str] = "SmolVLMForConditionalGeneration"
    budget_rule: ClassVar[str] = "qwen2_vl"
    images_together: ClassVar[str] = "the images of a prompt come in one piece"
    images_class: ClassVar[str] = "SmolVLMImageProcessor"
    processor_class: ClassVar[str] = "SmolVLMProcessor"
    """Name of the processor's class in `llava.model.processing.smolvlm`."""

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> SmolVLMProcessor:
        from llava.model.processing import smolvlm
        from llava.model.processing.marked import image_processor

        check_vocabulary(folder, tokenizer, model)
        images = image_processor(folder, self.images_class)
        processor = getattr(smolvlm, self.processor_class)(
            tokenizer, images, n_visual=model.model.image_seq_len, device=model.device
        )
        model.config.whole_image_token_id = tokenizer.convert_tokens_to_ids(smolvlm.WHOLE)
        return processor

    def decoder(self, model: Any) -> nn.Module:
        return model.model.text_model

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> list[int] | int | None:
        """Every image ends with the tile of the whole image; where its marker is not known, every tile is an image."""
        n_tile, ids = model.model.image_seq_len, inputs.get("input_ids")
        whole = getattr(model.config, "whole_image_token_id", None)
        if whole is None or ids is None:
            return n_tile
        lengths: list[int] = []
        for row in ids.cpu():
            seen = (row == model.config.image_token_id).cumsum(0)[row == whole].tolist()
            ends = [n + n_tile for n in seen]
            lengths += [end - start for start, end in zip([0, *ends], ends, strict=False)]
        return lengths or None


class Idefics3(SmolVLM):
    """The same model before it was made small."""

    name: ClassVar[str] = "idefics3"
    model_types: ClassVar[tuple[str, ...]] = ("idefics3",)
    title: ClassVar[str] = "Idefics 3 and the first SmolVLM (HuggingFaceTB/SmolVLM-Instruct)"
    transformers_class: ClassVar[str] = "Idefics3ForConditionalGeneration"
    images_class: ClassVar[str] = "Idefics3ImageProcessor"
    processor_class: ClassVar[str] = "Idefics3Processor"
