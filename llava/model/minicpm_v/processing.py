"""Prompts and images to inputs of MiniCPM-V 2.6, as its official processor makes them.

Every view of an image (overview and slices) is a run of placeholders of its own between markers, which are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llava.model.conversation import CHATML, IMAGE_MARKER, Template
from llava.model.minicpm_v.slicing import Size, Slicing
from llava.model.processing.marked import MarkedProcessor, join_padded

OFFICIAL_MARKER = "(<image>./</image>)"  # what the official chat code writes where ours writes `<image>`
PLACEHOLDER = "<unk>"
OVERVIEW, SLICE, NUMBER = ("<image>", "</image>"), ("<slice>", "</slice>"), ("<image_id>", "</image_id>")

MINICPM_V = replace(CHATML, name="minicpm_v")
"""MiniCPM-V 2.6 (its chat template): ChatML without a system turn."""


class MiniCPMVProcessor(MarkedProcessor):
    """Images are cut into views of about the same area, each keeping its shape.

    Args:
        tokenizer: the checkpoint's tokenizer; it knows the markers and the placeholder `<unk>`.
        slicing: how images are cut.
        image_mean, image_std: three numbers each, for values in [0, 1].
        n_visual: visual tokens of one view.
        numbered: whether each image is preceded by its number within the prompt.
        device: where the tensors are put.

    Raises:
        CheckpointError: the tokenizer lacks a marker.
    """

    family: ClassVar[str] = "minicpm_v"
    placeholder: ClassVar[str] = PLACEHOLDER
    markers: ClassVar[tuple[str, ...]] = (*OVERVIEW, *SLICE, *NUMBER)
    chat: ClassVar[Template] = MINICPM_V

    def __init__(
        self,
        tokenizer: Any,
        *,
        slicing: Slicing,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        n_visual: int,
        numbered: bool = True,
        device: str | torch.device = "cpu",
    ):
        super().__init__(tokenizer, n_visual=n_visual, device=device)
        self.slicing = slicing
        self.image_mean = np.asarray(image_mean, np.float32)
        self.image_std = np.asarray(image_std, np.float32)
        self.numbered = numbered

    def written_out(self, prompt: str, texts: Sequence[str]) -> str:
        return super().written_out(prompt.replace(OFFICIAL_MARKER, IMAGE_MARKER), texts)

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        views = [self.slicing.views(image) for image in images]
        flat = [view for image in views for view in image]
        patch = self.slicing.patch_size
        features = {
            "pixel_values": self.join("pixel_values", [self.strip(view)[None] for view in flat]),
            "tgt_sizes": torch.tensor([[view.height // patch, view.width // patch] for view in flat]),
            "n_views": torch.tensor([len(image) for image in views]),
        }
        return features, [self.image_text(number, image.size) for number, image in enumerate(images)]

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        return join_padded(parts, axis=3) if name == "pixel_values" else torch.cat(parts)

    def image_text(self, number: int, size: Size) -> str:
        """Return what stands in the prompt for the image of that number (from 0) and size (width, height)."""
        view = PLACEHOLDER * self.n_visual
        columns, rows = self.slicing.grid(size) or (0, 0)
        label = f"{NUMBER[0]}{number}{NUMBER[1]}" if self.numbered else ""
        row = (SLICE[0] + view + SLICE[1]) * columns
        return label + OVERVIEW[0] + view + OVERVIEW[1] + "\n".join([row] * rows)

    def strip(self, view: Image.Image) -> Tensor:
        """Return a view as its L patches of side P in reading order, side by side: (3, P, L * P) float32."""
        patch = self.slicing.patch_size
        values = (np.asarray(view, np.float32) / 255 - self.image_mean) / self.image_std  # (H, W, 3)
        pixels = torch.from_numpy(values).permute(2, 0, 1)
        rows = pixels.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))  # (3, rows, P, columns, P)
        return rows.transpose(1, 2).flatten(2)
