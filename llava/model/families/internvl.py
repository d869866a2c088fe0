"""InternVL 3 in transformers' format (`InternVLForConditionalGeneration`).

Touches: `model.model` (body), `model.model.language_model` (decoder: `layers`, `norm`, `config`), the layers'
`self_attn`, `config.image_token_id` and `config.image_seq_length`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.model.families.base import Family
from llava.model.tokenizers import check_vocabulary

if TYPE_CHECKING:
    from llava.model.processing.internvl import InternVLProcessor


class InternVL(Family):
    """All tiles of an image are one run of placeholders between markers."""

    name: ClassVar[str] = "internvl"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    title: ClassVar[str] = "InternVL 3 (OpenGVLab/InternVL3-1B-hf)"
    transformers_class: ClassVar[str] = "InternVLForConditionalGeneration"
    budget_rule: ClassVar[str] = "qwen2_vl"

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> InternVLProcessor:
        from llava.model.processing.internvl import InternVLProcessor
        from llava.model.processing.marked import image_processor

        check_vocabulary(folder, tokenizer, model)
        images = image_processor(folder, "GotOcr2ImageProcessor")
        return InternVLProcessor(tokenizer, images, n_visual=model.config.image_seq_length, device=model.device)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> None:
        """Not told: features come tile by tile. Markers keep the runs of two images apart."""
        return None
