"""Prompts and images to inputs of Gemma 3, as its processor makes them (without pan and scan)."""

from __future__ import annotations

from typing import ClassVar

from PIL import Image
from torch import Tensor

from llava.model.conversation import Template
from llava.model.processing.marked import MarkedProcessor

BEFORE, PLACEHOLDER, AFTER = "<start_of_image>", "<image_soft_token>", "<end_of_image>"

GEMMA3 = Template(
    name="gemma3",
    opening="<bos>",
    question=("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    answer=("", "<end_of_turn>\n"),
    stop="<end_of_turn>",
    user="user",
    assistant="model",
)
"""Gemma 3 (its chat template)."""


class Gemma3Processor(MarkedProcessor):
    """Every image becomes one square of `n_visual` visual tokens."""

    family: ClassVar[str] = "gemma3"
    placeholder: ClassVar[str] = PLACEHOLDER
    markers: ClassVar[tuple[str, ...]] = (BEFORE, AFTER)
    chat: ClassVar[Template] = GEMMA3
    marker_end: ClassVar[str] = ""

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        made = self.images(images=images, do_pan_and_scan=False, do_convert_rgb=True, return_tensors="pt")
        text = f"\n\n{BEFORE}{PLACEHOLDER * self.n_visual}{AFTER}\n\n"
        return {"pixel_values": made["pixel_values"]}, [text] * len(images)

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # The model lets the tokens of one image see each other; it asks for their places in every prefill.
        return {**batch, "token_type_ids": (batch["input_ids"] == self.image_token_id).long()}
