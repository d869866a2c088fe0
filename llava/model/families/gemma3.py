"""Gemma 3 (`Gemma3ForConditionalGeneration`), as long as the prompt fits into the window of its sliding layers.

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id` and `config.mm_tokens_per_image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.model.families.base import Family
from llava.model.tokenizers import check_vocabulary

if TYPE_CHECKING:
    from llava.model.processing.gemma3 import Gemma3Processor


class Gemma3(Family):
    """Every image has the same number of visual tokens; they see each other in both directions."""

    name: ClassVar[str] = "gemma3"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    title: ClassVar[str] = "Gemma 3 (google/gemma-3-4b-it)"
    transformers_class: ClassVar[str] = "Gemma3ForConditionalGeneration"
    budget_rule: ClassVar[str] = "qwen2_vl"
    limits: ClassVar[str] = "prompts up to the sliding window"
    prefix_differs: ClassVar[str] = "the tokens of an image see each other in both directions"

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> Gemma3Processor:
        from llava.model.processing.gemma3 import Gemma3Processor
        from llava.model.processing.marked import image_processor

        check_vocabulary(folder, tokenizer, model)
        images = image_processor(folder, "Gemma3ImageProcessor")
        return Gemma3Processor(tokenizer, images, n_visual=model.config.mm_tokens_per_image, device=model.device)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> int:
        return model.config.mm_tokens_per_image
