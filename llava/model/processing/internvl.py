"""Prompts and images to inputs of InternVL in transformers' format, as its processor makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from llava.model.conversation import CHATML
from llava.model.processing.marked import MarkedProcessor

BEFORE, PLACEHOLDER, AFTER = "<img>", "<IMG_CONTEXT>", "</img>"

INTERNVL = replace(CHATML, name="internvl")
"""InternVL 3 (its chat template): ChatML without a system turn."""


class InternVLProcessor(MarkedProcessor):
    """An image is cut into square tiles, a small view of the whole comes last; all are one run of placeholders.

    Args:
        tokenizer: the checkpoint's tokenizer.
        images: transformers' image processor.
        n_visual: visual tokens of one tile.
        device: where the tensors are put.
    """

    family: ClassVar[str] = "internvl"

    def __init__(self, tokenizer: Any, images: Any, *, n_visual: int, device: str | torch.device = "cpu"):
        markers = (BEFORE, AFTER)
        super().__init__(tokenizer, placeholder=PLACEHOLDER, markers=markers, device=device, template=INTERNVL)
        self.images = images
        self.n_visual = n_visual

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        made = self.images(images=images, crop_to_patches=True, return_tensors="pt")
        texts = [BEFORE + PLACEHOLDER * (self.n_visual * int(n)) + AFTER for n in made["num_patches"]]
        return {"pixel_values": made["pixel_values"]}, texts
