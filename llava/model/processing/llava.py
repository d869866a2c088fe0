"""Prompts and images to model inputs, exactly as LLaVA-1.5 was trained and evaluated (official code, `mm_utils`).

Different from transformers' own processor on purpose: images are padded to a square instead of cropped, the prompt has
the system sentence, and text is tokenised piece by piece around `<image>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from llava.model.conversation import IMAGE_MARKER, VICUNA_V1, Template
from llava.model.framegrid import as_images, open_as_grid
from llava.model.images import pixel_values
from llava.model.processing.base import Processor, check_count
from llava.model.processing.pieces import Pieces


class LlavaProcessor(Processor):
    """Every image becomes one square of the vision tower's size; a video is one image, a grid of its frames.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        image_size: side of the vision tower's input in pixels.
        image_mean, image_std: three numbers each, for values in [0, 1].
        n_visual: visual tokens of one tower input.
        image_token_id: placeholder id that the model replaces by an image's features.
        device: where the tensors are put.
        template: conversation template of `prompt`.
    """

    family: ClassVar[str] = "llava"

    def __init__(
        self,
        tokenizer: Any,
        *,
        image_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        n_visual: int,
        image_token_id: int,
        device: str | torch.device = "cpu",
        template: Template = VICUNA_V1,
    ):
        super().__init__(tokenizer, placeholders=(image_token_id,), device=device, template=template)
        self.image_size = image_size
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)
        self.n_visual = n_visual
        self.image_token_id = image_token_id
        self._pieces = Pieces(tokenizer)

    def encode(self, prompt: str, images: list[Image.Image], videos: list[Any]) -> tuple[list[int], dict[str, Tensor]]:
        prompt, images = as_images(prompt, images, videos)
        ids = self.token_ids(prompt, [self.n_visual] * len(images))
        if not images:
            return ids, {}
        return ids, {"pixel_values": torch.stack([self.looked_at(image) for image in images])}

    def pixels(self, image: Image.Image) -> Tensor:
        return self.pixel_values(image)

    def open_video(self, source: Any) -> Image.Image:
        """Return the video as one picture, a grid of its frames (`llava.model.framegrid`)."""
        return open_as_grid(source)

    def pixel_values(self, image: Image.Image) -> Tensor:
        """Return the tower's input for one RGB image, (3, S, S) float32."""
        return pixel_values(image, self.image_size, self.image_mean, self.image_std)

    def token_ids(self, prompt: str, lengths: Sequence[int]) -> list[int]:
        """Return the ids of a prompt: BOS once, each piece tokenised on its own, placeholders between them.

        Args:
            prompt: full prompt text with one `<image>` for each image.
            lengths: visual tokens of every image.

        Raises:
            BadInput: the prompt does not have one marker for each image.
        """
        first, *pieces = prompt.split(IMAGE_MARKER)
        check_count(IMAGE_MARKER, len(pieces), len(lengths), "images")
        ids = [*self._pieces.start, *self._pieces.ids(first)]
        for piece, length in zip(pieces, lengths, strict=True):
            ids += [self.image_token_id] * length + self._pieces.ids(piece)
        return ids
