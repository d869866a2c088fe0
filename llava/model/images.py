"""Images in: open a file, link or Pillow image safely, and turn it into LLaVA-1.5's pixel values."""

import io
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from llava.errors import BadInput, MissingData

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none that starts another program, as EPS does
SMALLEST_SIDE = 2
LARGEST_SIDE = 16_384
LARGEST_ASPECT = 100
LARGEST_DOWNLOAD = 64 * 2**20  # bytes
DOWNLOAD_TIMEOUT = 20  # seconds


def load_image(source: str | Path | io.BytesIO | Image.Image) -> Image.Image:
    """Return the image in RGB.

    Args:
        source: path of a file, an http(s) link, the bytes of a file, or a Pillow image.

    Raises:
        MissingData: there is no such file.
        BadInput: not an image, truncated, of an unusable size, or the link cannot be read.
    """
    if isinstance(source, Image.Image):
        return _decoded(source, "The image")
    if isinstance(source, io.BytesIO):
        return _opened(source, "The image")
    text = str(source)
    if urllib.parse.urlparse(text).scheme in ("http", "https"):
        return _opened(io.BytesIO(_download(text)), text)
    path = Path(text).expanduser()
    if not path.exists():
        raise MissingData(f"No image at {text}: check the path (http and https links work too).")
    if not path.is_file():
        raise BadInput(f"{text} is not a file: give the path of an image (PNG, JPEG, ...).")
    try:
        return _opened(path, text)
    except PermissionError as error:
        raise BadInput(f"{text} cannot be read: no permission.") from error


def _opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file, formats=FORMATS) as image:
            return _decoded(image, name)
    except UnidentifiedImageError as error:
        raise BadInput(f"{name} is not an image of a known kind ({', '.join(FORMATS)}).") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name} has too many pixels to be opened safely: make it smaller first.") from error


def _decoded(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    short, long = sorted(image.size)
    if short < SMALLEST_SIDE or long > LARGEST_SIDE or long > LARGEST_ASPECT * short:
        raise BadInput(
            f"{name} is {width} x {height} pixels: sides from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels work, "
            f"and the longer at most {LARGEST_ASPECT} times the shorter."
        )
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of these on damaged data
        raise BadInput(f"{name} is damaged or cut short ({error}).") from error


def _download(link: str) -> bytes:
    try:
        request = urllib.request.Request(link, headers={"User-Agent": "llava-dart"})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as answer:
            data = answer.read(LARGEST_DOWNLOAD + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"{link} could not be downloaded ({reason}): save the image and give its path.") from error
    if len(data) > LARGEST_DOWNLOAD:
        raise BadInput(f"{link} is larger than {LARGEST_DOWNLOAD // 2**20} MiB: save a smaller one and give its path.")
    return data


def pad_to_square(image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    """Return the RGB image centred on a square of the fill colour (official code, `expand2square`)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def pixel_values(image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return what the vision tower reads, (3, size, size) float32: padded, resized (bicubic), scaled and normalised.

    Args:
        image: RGB image of any shape.
        size: side of the tower's input in pixels.
        mean, std: per channel, of values in [0, 1]; the padding has the mean colour.
    """
    red, green, blue = (int(255 * channel) for channel in mean)
    square = pad_to_square(image, (red, green, blue)).resize((size, size), Image.Resampling.BICUBIC)
    scaled = (np.asarray(square) * (1 / 255)).astype(np.float32)
    normal = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(normal.transpose(2, 0, 1).copy())
