"""Prompts, images and videos of Qwen2-VL, Qwen2.5-VL and Qwen3-VL as model inputs; needs no torchvision.

Source: the official `qwen-vl-utils` (sizes, frames) and the chat templates of the checkpoints. The images are resized
by Pillow, in the original also by Pillow; videos by torchvision there, so their pixels differ in the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from llava.errors import ConfigurationError
from llava.model.conversation import IMAGE_MARKER, QWEN2_VL, QWEN3_VL, VIDEO_MARKER, Template, Turn
from llava.model.processing.base import Processor, check_count
from llava.model.processing.patches import PatchGrid, fitted_size
from llava.model.video import Video, open_video

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
START, END = "<|vision_start|>", "<|vision_end|>"
TEXT, IMAGE, VIDEO = 0, 1, 2  # kinds in `mm_token_type_ids`


@dataclass(frozen=True)
class PixelLimits:
    """Smallest and largest number of pixels of a resized image."""

    smallest: int
    largest: int


@dataclass(frozen=True)
class VideoRules:
    """How a video is sampled and sized (official `qwen-vl-utils`).

    Args:
        fps: sampled frames per second.
        fewest, most: bounds of the number of sampled frames.
        smallest, largest: bounds of a frame's size, in visual tokens.
        total: bound of the sum over all temporal patches, in visual tokens.
    """

    fps: float = 2.0
    fewest: int = 4
    most: int = 768
    smallest: int = 128
    largest: int = 768
    total: int = 115_200  # 90 % of a context of 128000

    def choose(self, n_frames: int, fps: float, temporal: int) -> list[int]:
        """Return the sampled frame numbers: a multiple of `temporal` of them, first and last frame included."""
        most = min(self.most, n_frames) // temporal * temporal
        wanted = int(min(max(n_frames / fps * self.fps, self.fewest), most)) // temporal * temporal
        return torch.linspace(0, n_frames - 1, max(wanted, temporal)).round().long().tolist()

    def size(self, size: tuple[int, int], grid: PatchGrid, n_frames: int) -> tuple[int, int]:
        """Return the (width, height) that the frames of a video are resized to."""
        token = grid.factor**2
        smallest = self.smallest * token
        share = self.total * token * grid.temporal / n_frames
        return fitted_size(size, grid.factor, smallest, max(min(self.largest * token, share), int(smallest * 1.05)))


class Qwen2VLProcessor(Processor):
    """Every image has as many visual tokens as its size asks for, within limits.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        grid: how pictures become patches.
        limits: of the images' pixels.
        template: the chat template.
        video: how videos are sampled and sized.
        device: where the tensors are put.
    """

    family: ClassVar[str] = "qwen2_vl"
    lengths_vary: ClassVar[bool] = True
    marker_end: ClassVar[str] = ""
    timed: ClassVar[bool] = False
    """Whether the model is told the seconds between the frames."""
    stamped: ClassVar[bool] = False
    """Whether the time is written before every frame."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        grid: PatchGrid,
        limits: PixelLimits,
        template: Template = QWEN2_VL,
        video: VideoRules | None = None,
        device: str | torch.device = "cpu",
    ):
        self.image_id, self.video_id, self.start_id, self.end_id = (
            tokenizer.convert_tokens_to_ids(word) for word in (IMAGE_PAD, VIDEO_PAD, START, END)
        )
        super().__init__(tokenizer, placeholders=(self.image_id, self.video_id), device=device, template=template)
        self.grid, self.limits, self.video = grid, limits, video or VideoRules()

    # ------------------------------------------------------------------------------------------------------- settings

    def configure(self, *, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        """Set the limits of the images' pixels; None leaves one as it is.

        Raises:
            ConfigurationError: not positive, or the smallest is above the largest.
        """
        limits = PixelLimits(
            self.limits.smallest if min_pixels is None else min_pixels,
            self.limits.largest if max_pixels is None else max_pixels,
        )
        area = self.grid.factor**2
        if not 1 <= limits.smallest <= limits.largest or limits.largest < area:
            raise ConfigurationError(
                f"min_pixels={limits.smallest} and max_pixels={limits.largest} are no limits of an image: give "
                f"1 <= min_pixels <= max_pixels, and max_pixels of at least {area} (one visual token)."
            )
        self.limits = limits
        self._looked.clear()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"min_pixels": self.limits.smallest, "max_pixels": self.limits.largest}

    # --------------------------------------------------------------------------------------------------------- prompts

    def prompt(self, text_or_turns: str | Sequence[Turn], n_images: int = 1, n_videos: int = 0) -> str:
        text = super().prompt(text_or_turns, n_images, n_videos)
        if n_images:
            text = text.replace(IMAGE_MARKER, f"{START}{IMAGE_PAD}{END}")
        return text.replace(VIDEO_MARKER, f"{START}{VIDEO_PAD}{END}") if n_videos else text

    def encode(
        self, prompt: str, images: list[Image.Image], videos: list[Video]
    ) -> tuple[list[int], dict[str, Tensor]]:
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        check_count(IMAGE_PAD, ids.count(self.image_id), len(images), "images")
        check_count(VIDEO_PAD, ids.count(self.video_id), len(videos), "videos")
        features: dict[str, Tensor] = {}
        pictures = [self.looked_at(image) for image in images]
        films = [self.grid.rows(film.frames, self._video_size(film)) for film in videos]
        for parts, values, grids in ((pictures, "pixel_values", "image"), (films, "pixel_values_videos", "video")):
            if parts:
                features[values] = torch.cat([rows for rows, _ in parts])
                features[f"{grids}_grid_thw"] = torch.cat([grid for _, grid in parts])
        if videos and self.timed:
            features["second_per_grid_ts"] = torch.tensor([self.grid.temporal / film.sampled_fps for film in videos])
        return self._expanded(ids, [grid for _, grid in pictures], [grid for _, grid in films], videos), features

    def pixels(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        return self.grid.rows([image], self.image_size(image.size))

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add `mm_token_type_ids` (B, T): 0 text, 1 image, 2 video."""
        ids = batch["input_ids"]
        kinds = (ids == self.image_id) * IMAGE + (ids == self.video_id) * VIDEO
        return {**batch, "mm_token_type_ids": kinds.int() + TEXT}

    def image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that an image of this (width, height) is resized to."""
        return fitted_size(size, self.grid.factor, self.limits.smallest, self.limits.largest)

    def visual_length(self, size: tuple[int, int]) -> int:
        return self.n_visual(size)

    def n_visual(self, size: tuple[int, int]) -> int:
        """Return the visual tokens of an image of this (width, height)."""
        return math.prod(self.image_size(size)) // self.grid.factor**2

    def open_video(self, source: Any) -> Video:
        return open_video(source, lambda n_frames, fps: self.video.choose(n_frames, fps, self.grid.temporal))

    def _video_size(self, film: Video) -> tuple[int, int]:
        return self.video.size(film.frames[0].size, self.grid, len(film.frames))

    def _expanded(self, ids: list[int], images: list[Tensor], videos: list[Tensor], films: list[Video]) -> list[int]:
        """The ids with every placeholder repeated once for each of its visual tokens."""
        grids, moving = iter(images), iter(zip(videos, films, strict=True))
        expanded: list[int] = []
        skip_end = False
        for token in ids:
            if token == self.image_id:
                expanded += [token] * self._n_tokens(next(grids))
            elif token == self.video_id and self.stamped:
                # The times and frames bring markers of their own, which replace those around the placeholder.
                if expanded and expanded[-1] == self.start_id:
                    expanded.pop()
                    skip_end = True
                expanded += self._stamped(*next(moving))
            elif token == self.video_id:
                expanded += [token] * self._n_tokens(next(moving)[0])
            elif not (skip_end and token == self.end_id):
                expanded.append(token)
            else:
                skip_end = False
        return expanded

    def _stamped(self, grid: Tensor, film: Video) -> list[int]:
        """For every temporal patch its mean time in the video, then its placeholders between markers."""
        step, (times, *_) = self.grid.temporal, grid[0].tolist()
        numbers = [*film.indices, *[film.indices[-1]] * (-len(film.indices) % step)]
        ids: list[int] = []
        for first in range(0, len(numbers), step):
            seconds = (numbers[first] + numbers[first + step - 1]) / 2 / film.fps
            ids += self.tokenizer(f"<{seconds:.1f} seconds>", add_special_tokens=False).input_ids
            ids += [self.start_id, *[self.video_id] * (self._n_tokens(grid) // times), self.end_id]
        return ids

    def _n_tokens(self, grid: Tensor) -> int:
        return int(grid.prod()) // self.grid.merge**2


class Qwen25VLProcessor(Qwen2VLProcessor):
    """As Qwen2-VL; the seconds between the frames of a video go into the positions."""

    family: ClassVar[str] = "qwen2_5_vl"
    timed: ClassVar[bool] = True


class Qwen3VLProcessor(Qwen2VLProcessor):
    """As Qwen2-VL, without a system turn, and with the time written before every frame of a video.

    Source: the processor of the model's release; frames are sized as `qwen-vl-utils` does. transformers' own processor
    bounds the volume of a video instead of its frames, and (5.23) leaves a second pair of vision markers around it.
    """

    family: ClassVar[str] = "qwen3_vl"
    stamped: ClassVar[bool] = True

    def __init__(self, tokenizer: Any, *, template: Template = QWEN3_VL, **settings: Any):
        super().__init__(tokenizer, template=template, **settings)
