"""Images and videos of any size as rows of patches, the way the vision towers of Qwen-VL read them.

Source: the official `qwen-vl-utils` and the image processor of `Qwen2-VL`; resizing is Pillow's (bicubic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llava.errors import BadInput

LARGEST_ASPECT = 200  # official


@dataclass(frozen=True)
class PatchGrid:
    """How pictures become patches; the numbers stand in the checkpoint's preprocessor_config.json.

    Args:
        patch: side of a patch in pixels.
        merge: patches merged into one visual token, along each side.
        temporal: frames of one patch; an image counts as that many equal frames.
        mean, std: per channel, of values in [0, 1].
    """

    patch: int
    merge: int
    temporal: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def factor(self) -> int:
        """Side of a visual token in pixels; sides of resized pictures are multiples of it."""
        return self.patch * self.merge

    def rows(self, frames: Sequence[Image.Image], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return (patches, 3 * temporal * patch * patch) float32 and the grid (time, height, width) in patches.

        Args:
            frames: RGB images of one size, padded with the last one to a whole number of temporal patches.
            size: (width, height) they are resized to, multiples of `factor`.

        The patches of a visual token stand together: time, token row, token column, then the patches within the token.
        """
        frames = [*frames, *[frames[-1]] * (-len(frames) % self.temporal)]
        resized = [np.asarray(frame.resize(size, Image.Resampling.BICUBIC)) for frame in frames]
        pixels = np.stack(resized).astype(np.float32) / 255
        pixels = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        times, height, width = len(frames) // self.temporal, size[1] // self.patch, size[0] // self.patch
        shape = (times, self.temporal, height // self.merge, self.merge, self.patch)
        blocks = torch.from_numpy(pixels).view(*shape, width // self.merge, self.merge, self.patch, 3)
        # (time, frame, row, row in token, y, column, column in token, x, channel) -> token by token, patch by patch
        blocks = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return blocks.reshape(times * height * width, -1), torch.tensor([[times, height, width]])


def fitted_size(size: tuple[int, int], factor: int, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """Return (width, height) near the given size, multiples of `factor`, with a bounded product.

    Source: official `smart_resize`, also in that it rounds to the nearest even multiple in the middle.

    Args:
        size: (width, height) in pixels.
        factor: what both sides are to be divisible by.
        min_pixels, max_pixels: bounds of width * height.

    Raises:
        BadInput: one side is more than 200 times the other.
    """
    width, height = size
    if max(size) > LARGEST_ASPECT * min(size):
        raise BadInput(
            f"A picture of {width} x {height} pixels cannot be used: the longer side may be at most {LARGEST_ASPECT} "
            "times the shorter."
        )
    fitted = [round(side / factor) * factor for side in size]
    if math.prod(fitted) > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        fitted = [max(factor, math.floor(side / shrink / factor) * factor) for side in size]
    elif math.prod(fitted) < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        fitted = [math.ceil(side * grow / factor) * factor for side in size]
    return fitted[0], fitted[1]
