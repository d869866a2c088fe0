"""Prompts and images to LLaVA-NeXT's inputs: the squashed image and its tiles, as the official code cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from llava.model import tiling
from llava.model.framegrid import as_images
from llava.model.processing.llava import LlavaProcessor
from llava.model.tiling import Size


class LlavaNextProcessor(LlavaProcessor):
    """Every image becomes several squares of the vision tower's size; how many tokens they give depends on its shape.

    Args:
        resolutions: canvases that tiles are cut from, (width, height), in the official order.
        patches: along one side of a tile.
        others: as for `LlavaProcessor`.
    """

    family: ClassVar[str] = "llava_next"
    lengths_vary: ClassVar[bool] = True

    def __init__(self, tokenizer: Any, *, resolutions: Sequence[Size], patches: int, **others: Any):
        super().__init__(tokenizer, **others)
        self.resolutions: list[Size] = [(width, height) for width, height in resolutions]
        self.patches = patches

    def encode(self, prompt: str, images: list[Image.Image], videos: list[Any]) -> tuple[list[int], dict[str, Tensor]]:
        prompt, images = as_images(prompt, images, videos)
        sizes = [self.packed_size(image.size) for image in images]
        ids = self.token_ids(prompt, [self.image_length(size) for size in sizes])
        if not images:
            return ids, {}
        tiles = [self.looked_at(image) for image in images]
        return ids, {
            "pixel_values": _stacked([value[None] for value in tiles]),
            "image_sizes": torch.tensor([(height, width) for width, height in sizes]),
        }

    def pixels(self, image: Image.Image) -> Tensor:
        return self.tiles(image)

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        return _stacked(parts) if name == "pixel_values" else super().join(name, parts)

    def tiles(self, image: Image.Image) -> Tensor:
        """Return the tower's inputs for one RGB image, (1 + tiles, 3, S, S) float32, the whole image first."""
        canvas = tiling.best_resolution(image.size, self.resolutions)
        return torch.stack([self.pixel_values(tile) for tile in tiling.tiles(image, canvas, self.image_size)])

    def packed_size(self, size: Size) -> Size:
        """Return the (width, height) the model is told, so that it packs as the official code does."""
        return tiling.size_for_transformers(size, self.resolutions, self.image_size, self.patches)

    def visual_length(self, size: Size) -> int:
        return self.image_length(self.packed_size(size))

    def image_length(self, size: Size) -> int:
        """Return the visual tokens, newlines included, of an image of the (width, height) the model is told."""
        shown = tiling.shown_in(size, self.resolutions, self.image_size, self.patches)
        return tiling.packed_length(self.n_visual, shown)


def _stacked(images: list[Tensor]) -> Tensor:
    """[(n, tiles, 3, S, S)] -> (sum of n, most tiles, 3, S, S); images with fewer tiles are filled up with zeros."""
    most = max(image.shape[1] for image in images)
    return torch.cat([pad(image, (0, 0, 0, 0, 0, 0, 0, most - image.shape[1])) for image in images])
