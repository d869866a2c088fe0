"""Prompts and images to inputs of LLaVA-OneVision in transformers' format, as its processor makes them."""

from __future__ import annotations

from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from llava.model.conversation import Template
from llava.model.processing.marked import MarkedProcessor, join_padded

PLACEHOLDER = "<image>"

ONEVISION = Template(
    name="onevision",
    opening="",
    question=("<|im_start|>user ", "<|im_end|><|im_start|>assistant\n"),
    answer=("", "<|im_end|>"),
    stop="<|im_end|>",
    user="user",
    assistant="assistant",
)
"""LLaVA-OneVision (its chat template)."""


class OneVisionProcessor(MarkedProcessor):
    """A single image is seen whole and in tiles; several images are seen whole only.

    `n_visual` is a function here: (height, width) of an image and whether it is shown in tiles -> its visual tokens.
    """

    family: ClassVar[str] = "llava_onevision"
    placeholder: ClassVar[str] = PLACEHOLDER
    chat: ClassVar[Template] = ONEVISION

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        made = self.images(images=[images], return_tensors="pt")
        features = {name: torch.as_tensor(made[name]) for name in ("pixel_values", "image_sizes")}
        features["batch_num_images"] = torch.tensor([len(images)])
        tiled = len(images) == 1
        return features, [PLACEHOLDER * self.n_visual((image.height, image.width), tiled) for image in images]

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        return join_padded(parts, axis=1) if name == "pixel_values" else torch.cat(parts)
