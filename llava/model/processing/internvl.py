"""Prompts and images to inputs of InternVL in transformers' format, as its processor makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from PIL import Image
from torch import Tensor

from llava.model.conversation import CHATML, Template
from llava.model.processing.marked import MarkedProcessor

BEFORE, PLACEHOLDER, AFTER = "<img>", "<IMG_CONTEXT>", "</img>"

INTERNVL = replace(CHATML, name="internvl")
"""InternVL 3 (its chat template): ChatML without a system turn."""


class InternVLProcessor(MarkedProcessor):
    """An image is cut into square tiles of `n_visual` tokens each, a small view of the whole comes last; all are one
    run of placeholders."""

    family: ClassVar[str] = "internvl"
    placeholder: ClassVar[str] = PLACEHOLDER
    markers: ClassVar[tuple[str, ...]] = (BEFORE, AFTER)
    chat: ClassVar[Template] = INTERNVL

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        made = self.images(images=images, crop_to_patches=True, return_tensors="pt")
        texts = [BEFORE + PLACEHOLDER * (self.n_visual * int(n)) + AFTER for n in made["num_patches"]]
        return {"pixel_values": made["pixel_values"]}, texts
