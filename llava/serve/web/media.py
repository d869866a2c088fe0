"""Images and videos that visitors upload: opened within limits, and where the frames of a video stand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.errors import BadInput, LlavaError
from llava.model import framegrid
from llava.model.images import FORMATS, load_image
from llava.model.processing.base import Processor
from llava.model.video import FORMATS as VIDEO_FORMATS
from llava.model.video import Video, evenly, open_video
from llava.report.overlay_boards import Board, boards
from llava.serve.session import Conversation
from llava.serve.web.settings import Limits

IMAGE, VIDEO = "image", "video"
NO_TOKEN = -1
MB = 2**20


@dataclass(frozen=True)
class Medium:
    """The image or video that a conversation is about.

    Args:
        path: its file.
        source: the image; or what the processor's `open_video` made of a video.
        name: what to call its file in a command line.
        seconds: of a video, when each frame that the model sees is shown; empty for an image.
    """

    path: str
    source: Any
    name: str
    seconds: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """IMAGE or VIDEO."""
        return VIDEO if self.seconds else IMAGE

    @property
    def words(self) -> tuple[str, str]:
        """The words of the command line that show it to the model."""
        return f"--{self.kind}-file", self.name

    def show(self, conversation: Conversation) -> None:
        """Show it with the next question of a conversation."""
        if self.kind == VIDEO:
            conversation.add_video(self.source)
        else:
            conversation.add_image(self.source)


def takes_videos(processor: Any) -> bool:
    """Whether models of this family take videos."""
    return type(processor).open_video is not Processor.open_video


def open_image(path: str | Path | None, name: str, limits: Limits) -> Medium:
    """Return the image of a file.

    Raises:
        BadInput: there is none, it is too large, or it is no image.
    """
    if path is None:
        raise BadInput("There is no image: upload one, or pick one of the examples.")
    _check_size(Path(path), "image", limits.image_bytes, "Save it smaller, or as JPEG.")
    data = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Medium(str(path), load_image(io.BytesIO(data)), name)  # which says what is wrong with it
    if width * height > limits.image_pixels:
        raise BadInput(
            f"The image has {width} x {height} pixels: {limits.image_pixels / 1e6:.0f} million are allowed. Make it "
            "smaller."
        )
    return Medium(str(path), load_image(io.BytesIO(data)), name)


def open_film(path: str | Path | None, name: str, limits: Limits, processor: Any) -> Medium:
    """Return the frames of a video file that the model is to see.

    Raises:
        BadInput: there is none, it is too large or too long, it is no video, or the model takes none.
        LlavaError: PyAV is not installed.
    """
    if path is None:
        raise BadInput("There is no video: upload one, or pick the example.")
    _check_size(Path(path), "video", limits.video_bytes, "Make it shorter or smaller.")
    try:
        _check_pixels(Path(path), limits)
        probe = open_video(path, lambda n_frames, fps: _checked(n_frames, fps, limits))
        source = processor.open_video(str(path))
    except LlavaError as error:  # which names the file by its place on this machine
        raise type(error)(str(error).replace(str(path), Path(path).name)) from error
    shown = source if isinstance(source, Video) else None
    indices = shown.indices if shown else evenly(probe.n_frames, framegrid.SIDE**2)
    return Medium(str(path), source, name, tuple(index / probe.fps for index in indices))


def drawn_boards(model: Any, processor: Any, medium: Medium) -> list[Board]:
    """Return what the vision tower is shown; where its tokens stand there, if that is known."""
    given: list[list[Any]] = [[], []]
    given[medium.kind == VIDEO].append(medium.source)
    images, videos = given
    try:
        inputs = processor([processor.prompt("?", len(images), len(videos))], [images], [videos])
        return boards(model, processor, inputs)[0]
    except LlavaError:
        pictures = [medium.source] if isinstance(medium.source, Image.Image) else medium.source.frames
        arrays = [np.asarray(picture) for picture in pictures]
        return [Board(pixels, np.full(pixels.shape[:2], NO_TOKEN)) for pixels in arrays]


def frame_boards(found: Sequence[Board], medium: Medium) -> list[Board]:
    """Return a board for each frame of a video, named by its time; the boards of an image as they are.

    A picture of frames side by side is cut into its frames, unless a token lies across two of them.
    """
    if medium.kind == IMAGE:
        return list(found)
    if not isinstance(medium.source, Image.Image):
        step = len(medium.seconds) / len(found)
        times = [medium.seconds[int(number * step)] for number in range(len(found))]
        names = [board.name or f"frame {number}" for number, board in enumerate(found, 1)]
        return [replace(board, name=f"{name}, {t:.1f} s") for board, name, t in zip(found, names, times, strict=True)]
    frames = []
    for board in found:
        own = f", {board.name}" if board.name else ""
        if any(size % framegrid.SIDE for size in board.tokens.shape):
            frames.append(replace(board, name=f"frames 1-{len(medium.seconds)}{own}"))
            continue
        for number, time in enumerate(medium.seconds):
            place = divmod(number, framegrid.SIDE)
            name = f"frame {number + 1}, {time:.1f} s{own}"
            frames.append(Board(_cell(board.pixels, *place), _cell(board.tokens, *place), name))
    return frames


def _cell(whole: np.ndarray, row: int, column: int) -> np.ndarray:
    """One frame's part of a picture, or of its tokens."""
    height, width = (size // framegrid.SIDE for size in whole.shape[:2])
    return whole[row * height : (row + 1) * height, column * width : (column + 1) * width]


def _check_size(file: Path, what: str, allowed: int, advice: str) -> None:
    size = file.stat().st_size
    if size > allowed:
        raise BadInput(f"The {what} file has {size / MB:.1f} MB: {allowed / MB:.0f} MB are allowed. {advice}")


def _check_pixels(file: Path, limits: Limits) -> None:
    """Refuse frames that are too large before the first of them is decoded; other troubles are for `open_video`."""
    try:
        import av
    except ImportError:
        return
    try:
        options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": ""}
        with file.open("rb") as opened, av.open(opened, mode="r", options=options) as container:
            context = container.streams.video[0].codec_context
            width, height = (context.width, context.height) if context is not None else (0, 0)
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return
    if not width * height:
        raise BadInput(f"{file.name} is no video of a known kind, or it is damaged or cut short.")
    if width * height > limits.video_pixels:
        raise BadInput(
            f"The video has {width} x {height} pixels: {limits.video_pixels / 1e6:.1f} million are allowed. Make it "
            "smaller, for example 1280 x 720."
        )


def _checked(n_frames: int, fps: float, limits: Limits) -> list[int]:
    """The first frame only, if the video is short enough."""
    seconds = n_frames / fps
    if seconds > limits.video_seconds:
        raise BadInput(f"The video lasts {seconds:.0f} s: {limits.video_seconds:.0f} s are allowed. Cut it shorter.")
    if n_frames > limits.video_frames:
        raise BadInput(f"The video has {n_frames} frames: {limits.video_frames} are allowed. Cut it shorter.")
    return [0]
