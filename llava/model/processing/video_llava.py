"""Prompts, images and videos to model inputs as Video-LLaVA was evaluated (official code).

Images are padded to a square, as there; frames of videos are resized by their short side and cropped in the middle.
Different from the official code: frames are resized before they are normalised (Pillow, bicubic; bilinear there), and
never mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llava.model.conversation import IMAGE_MARKER, LLAVA_V1, VIDEO_MARKER, Template
from llava.model.images import pixel_values
from llava.model.processing.base import Processor, check_count
from llava.model.processing.pieces import Pieces
from llava.model.video import Video, evenly, open_video

MARKERS = re.compile(f"({re.escape(IMAGE_MARKER)}|{re.escape(VIDEO_MARKER)})")


class VideoLlavaProcessor(Processor):
    """Every image has one square of patches, every video as many as it has sampled frames, class tokens included.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        image_size: side of the vision towers' input in pixels.
        image_mean, image_std: three numbers each, for values in [0, 1].
        n_visual: visual tokens of an image.
        n_frame: visual tokens of a frame of a video, which keeps its class token.
        n_frames: frames sampled from a video.
        image_token_id, video_token_id: placeholder ids.
        images: the model's name for images, which older versions of transformers call pixel_values_images.
        device: where the tensors are put.
        template: conversation template of `prompt`.
    """

    family: ClassVar[str] = "video_llava"

    def __init__(
        self,
        tokenizer: Any,
        *,
        image_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        n_visual: int,
        n_frame: int,
        n_frames: int,
        image_token_id: int,
        video_token_id: int,
        images: str = "pixel_values",
        device: str | torch.device = "cpu",
        template: Template = LLAVA_V1,
    ):
        super().__init__(tokenizer, placeholders=(image_token_id, video_token_id), device=device, template=template)
        self.image_size = image_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.n_visual, self.n_frame, self.n_frames = n_visual, n_frame, n_frames
        self.image_token_id, self.video_token_id = image_token_id, video_token_id
        self._images, self._pieces = images, Pieces(tokenizer)

    def encode(
        self, prompt: str, images: list[Image.Image], videos: list[Video]
    ) -> tuple[list[int], dict[str, Tensor]]:
        pieces = MARKERS.split(prompt)  # also without videos: as text, <video> would become the placeholder of one
        check_count(IMAGE_MARKER, pieces.count(IMAGE_MARKER), len(images), "images")
        check_count(VIDEO_MARKER, pieces[1::2].count(VIDEO_MARKER), len(videos), "videos")
        blocks = {
            IMAGE_MARKER: [self.image_token_id] * self.n_visual,
            VIDEO_MARKER: [self.video_token_id] * self.n_frame * self.n_frames,
        }
        ids = list(self._pieces.start)
        for place, piece in enumerate(pieces):
            ids += blocks[piece] if place % 2 else self._pieces.ids(piece)
        features: dict[str, Tensor] = {}
        if images:
            settings = (self.image_size, self.image_mean, self.image_std)
            features[self._images] = torch.stack([pixel_values(image, *settings) for image in images])
        if videos:
            features["pixel_values_videos"] = torch.stack([self.frames(film) for film in videos])
        return ids, features

    def open_video(self, source: Any) -> Video:
        return open_video(source, lambda n_frames, fps: evenly(n_frames, self.n_frames))

    def frames(self, film: Video) -> Tensor:
        """Return what the video tower reads of a video, (frames, 3, S, S) float32."""
        pixels = np.stack([np.asarray(self._cropped(frame)) for frame in film.frames]).astype(np.float32) / 255
        pixels = (pixels - np.asarray(self.image_mean, np.float32)) / np.asarray(self.image_std, np.float32)
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())

    def _cropped(self, frame: Image.Image) -> Image.Image:
        """The middle square of a frame, its short side resized to the tower's input."""
        side, short = self.image_size, min(frame.size)
        width, height = (side if length == short else int(side * length / short) for length in frame.size)
        left, top = (width - side) // 2, (height - side) // 2
        return frame.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
