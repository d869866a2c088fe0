"""Videos for models that take images only: frames side by side in one picture.

The idea of "An Image Grid Can Be Worth a Video" (arXiv:2403.18406), with four frames and the question as it is: the
paper's six frames and explaining prompt suit larger models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from llava.model.conversation import IMAGE_MARKER, VIDEO_MARKER
from llava.model.video import evenly, open_video

SIDE = 2
"""Frames along one side of the picture."""


def open_as_grid(source: Any) -> Image.Image:
    """Return one picture of a video: SIDE * SIDE frames from its first to its last, in the order of reading.

    A picture that was made already comes back as it is.

    Args:
        source: what `llava.model.video.open_video` takes.

    Raises:
        MissingData, BadInput: as `open_video` does.
    """
    if isinstance(source, Image.Image):
        return source
    return grid_of(open_video(source, lambda n_frames, fps: evenly(n_frames, SIDE * SIDE)).frames)


def grid_of(frames: Sequence[Image.Image]) -> Image.Image:
    """Return SIDE * SIDE frames of one size as one RGB picture."""
    width, height = frames[0].size
    picture = Image.new("RGB", (SIDE * width, SIDE * height))
    for place, frame in enumerate(frames):
        picture.paste(frame, (place % SIDE * width, place // SIDE * height))
    return picture


def as_images(
    prompt: str, images: Sequence[Image.Image], grids: Sequence[Image.Image]
) -> tuple[str, list[Image.Image]]:
    """Return the prompt with `<image>` for every `<video>`, and all pictures in the order of their markers.

    Without videos, `<video>` is text. Markers too many or too few are left for the count of images to find.
    """
    if not grids:
        return prompt, list(images)
    still, moving, ordered = list(images), list(grids), []
    for marker in re.findall(f"{re.escape(IMAGE_MARKER)}|{re.escape(VIDEO_MARKER)}", prompt):
        pictures = moving if marker == VIDEO_MARKER else still
        ordered += [pictures.pop(0)] if pictures else []
    return prompt.replace(VIDEO_MARKER, IMAGE_MARKER), ordered + still + moving
