"""Videos in: decode the frames of a file that a model samples (PyAV, extra `video`), with every damage told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.errors import BadInput, LlavaError, MissingData
from llava.model.images import load_image

Choose = Callable[[int, float], Sequence[int]]
"""From the number of frames and the frames per second of a video to the ascending numbers of those to be seen."""

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,asf,flv,ogg,gif,apng,webp,y4m"
"""Kinds of files that may be opened: none that makes the decoder read other files or links."""
ASSUMED_FPS = 24.0
"""Frames per second of frames that come without a clock (transformers assumes the same)."""
ENDS_EARLY = 0.1
"""A file without a frame count may end this part of its announced length, and a second, before it (longer sound)."""
LATE_FRAMES = 8
"""A file may end this many frames before the number it announces (frames held back by the encoder)."""


@dataclass(frozen=True)
class Video:
    """The sampled frames of a video.

    Args:
        frames: RGB images, all of one size; the same image may stand several times.
        indices: their numbers within the video, from 0.
        n_frames: frames of the whole video.
        fps: its frames per second.
    """

    frames: list[Image.Image]
    indices: list[int]
    n_frames: int
    fps: float

    @property
    def sampled_fps(self) -> float:
        """Sampled frames per second."""
        return len(self.indices) / self.n_frames * self.fps


def evenly(n_frames: int, n_wanted: int) -> list[int]:
    """Return `n_wanted` frame numbers from the first to the last, rounded down; short videos repeat frames.

    Video-LLaVA's own sampling: `linspace(0, n_frames - 1, n_wanted)` cast to whole numbers.
    """
    return np.linspace(0, n_frames - 1, n_wanted).astype(int).tolist()


def open_video(source: Any, choose: Choose) -> Video:
    """Return the frames of a video that `choose` picks.

    Args:
        source: path of a file; or the frames themselves: Pillow images, or an array (T, H, W, 3) of bytes.
        choose: which frames.

    Raises:
        MissingData: there is no such file.
        BadInput: not a video, without frames, cut short, or PyAV is not installed.
    """
    if isinstance(source, Video):
        return source
    if isinstance(source, (str, Path)):
        return _decoded(source, choose)
    frames = _given_frames(source)
    indices = [int(index) for index in choose(len(frames), ASSUMED_FPS)]
    return Video([frames[index] for index in indices], indices, len(frames), ASSUMED_FPS)


def _given_frames(source: Any) -> list[Image.Image]:
    if isinstance(source, Sequence) and source and all(isinstance(frame, Image.Image) for frame in source):
        if len({frame.size for frame in source}) > 1:
            raise BadInput("The frames of a video have different sizes: give frames of one size.")
        return [load_image(frame) for frame in source]
    array = np.asarray(source)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or not array.size:
        raise BadInput(
            f"A video cannot be made from {type(source).__name__}: give the path of a file, a list of Pillow images, "
            "or an array of bytes (frames, height, width, 3)."
        )
    return [load_image(Image.fromarray(frame)) for frame in array]


def video_path(source: str | Path) -> Path:
    """Return the path of a video file.

    Raises:
        MissingData: there is no such file.
        BadInput: a folder or a link.
    """
    path, name = Path(source).expanduser(), str(source)
    if name.startswith(("http://", "https://")):
        raise BadInput(f"{name} is a link: save the video and give its path.")
    if not path.exists():
        raise MissingData(f"No video at {name}: check the path.")
    if not path.is_file():
        raise BadInput(f"{name} is not a file: give the path of a video (MP4, WebM, AVI, GIF, ...).")
    return path


def _decoded(source: str | Path, choose: Choose) -> Video:
    path, name = video_path(source), str(source)
    av = _pyav()
    try:
        n_frames, fps = _count(av, path, name)
        indices = [int(index) for index in choose(n_frames, fps)]
        found = _frames(av, path, set(indices))
    except (av.FFmpegError, OSError, ValueError) as error:  # PyAV raises a kind of its own for every ffmpeg code
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{name} is no video of a known kind, or it is damaged or cut short ({reason}).") from error
    if not found:
        raise BadInput(f"{name} has no frame that can be decoded: it is empty, damaged or cut short.")
    last = max(found)
    if max(indices) - last > LATE_FRAMES:
        raise BadInput(f"{name} is cut short: it announces {n_frames} frames, but only {last + 1} can be decoded.")
    return Video([load_image(found[min(index, last)]) for index in indices], indices, n_frames, fps)


def _count(av: Any, path: Path, name: str) -> tuple[int, float]:
    """(frames, frames per second) of a file; the frames are counted where the file does not tell."""
    with path.open("rb") as file, _container(av, file) as container:
        if not container.streams.video:
            raise BadInput(f"{name} has no video in it: give a file with moving images.")
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or ASSUMED_FPS)
        if stream.frames:
            return stream.frames, fps
        ends = [
            packet.pts * packet.time_base
            for packet in container.demux(stream)
            if packet.size and packet.pts is not None
        ]
        announced = (container.duration or 0) / av.time_base  # seconds
    if not ends:
        raise BadInput(f"{name} has no frames: it is empty, damaged or cut short.")
    if max(ends) < announced * (1 - ENDS_EARLY) - 1:
        raise BadInput(f"{name} is cut short: it announces {announced:.1f} s, but ends after {float(max(ends)):.1f} s.")
    return len(ends), fps


def _frames(av: Any, path: Path, wanted: set[int]) -> dict[int, Image.Image]:
    """Number -> RGB image of the wanted frames, and of the last one there is if the file ends before them."""
    found: dict[int, Image.Image] = {}
    newest: tuple[int, Any] | None = None
    with path.open("rb") as file, _container(av, file) as container, closing(_whole_frames(av, container)) as frames:
        for number, frame in enumerate(frames):
            newest = number, frame
            if number in wanted:
                found[number] = _upright(frame)
            if len(found) == len(wanted):
                return found
    if newest is not None:
        found[newest[0]] = _upright(newest[1])
    return found


def _whole_frames(av: Any, container: Any) -> Generator[Any, None, None]:
    """Frames in the order of showing, up to the first that cannot be decoded."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    try:
        yield from container.decode(stream)
    except av.FFmpegError:
        return
    finally:
        # PyAV frees a decoder with the interpreter locked; a decoder thread that still works may wait for that lock
        # forever (to log, for one). So all of them come to rest first.
        if stream.codec_context is not None:
            stream.codec_context.flush_buffers()


def _upright(frame: Any) -> Image.Image:
    """The frame as an RGB image, turned as the file asks for (films of telephones)."""
    turn = getattr(frame, "rotation", 0)
    image = frame.to_image()
    return image.rotate(turn, expand=True) if turn else image


def _container(av: Any, file: Any) -> Any:
    return av.open(file, mode="r", options={"format_whitelist": FORMATS, "protocol_whitelist": ""})


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise LlavaError("Videos need PyAV: type `pip install av` (or install the extra `video`).") from error
    return av
