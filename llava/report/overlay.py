"""Pictures of the kept tokens: the image with every dropped patch faded, one panel for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from torch import Tensor

from llava.errors import BadInput

FADE = 0.82  # share of white over a dropped patch


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: title, the pixels shown, and the text below."""

    title: str
    pixels: np.ndarray
    caption: str = ""


def faded(image: Image.Image, kept: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
    """Return the image (height, width, 3; uint8) with the patches that are not in `kept` almost white.

    Args:
        image: as the vision tower sees it.
        kept: indices of patches, row by row.
        grid: rows and columns of patches.
    """
    rows, columns = grid
    alive = np.zeros(rows * columns, dtype=bool)
    alive[np.asarray(kept, dtype=int)] = True
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    row = np.arange(pixels.shape[0]) * rows // pixels.shape[0]
    column = np.arange(pixels.shape[1]) * columns // pixels.shape[1]
    mask = alive.reshape(rows, columns)[row][:, column][..., None]
    return np.where(mask, pixels, pixels * (1 - FADE) + 255 * FADE).astype(np.uint8)


def tower_image(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Return what the vision tower sees, (3, S, S) normalised, as an image again."""
    channels = pixels.float().cpu().permute(1, 2, 0).numpy() * np.asarray(std) + np.asarray(mean)
    return Image.fromarray((channels * 255).round().clip(0, 255).astype(np.uint8))


def panels(
    model: Any, processor: Any, image: Image.Image, question: str, methods: dict[str, Any], max_new_tokens: int = 32
) -> list[Panel]:
    """Answer `question` under every method and show what each kept.

    Args:
        methods: title -> method.
    Raises:
        BadInput: the visual tokens of this family do not form one square of patches.
    """
    shown = []
    for title, method in methods.items():
        inputs = processor([processor.prompt(question)], [[image]]).to(model.device)
        with method(model) as pruning:
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answer = processor.decode(output[:, inputs["input_ids"].shape[1] :])[0]
        report = pruning.last
        side = round(report.visual[0] ** 0.5)
        if side * side != report.visual[0] or inputs["pixel_values"][0].ndim != 3:
            raise BadInput(
                f"{report.visual[0]} visual tokens are no square of patches: kept tokens can be drawn for LLaVA-1.5 "
                "models only."
            )
        seen = tower_image(inputs["pixel_values"][0], processor.image_mean, processor.image_std)
        mean = f" (mean {report.mean_over_layers[0]:.0f})" if len(report.cut_layers) > 1 else ""
        words = f"{title}: {report.final[0]} of {report.visual[0]}{mean}"
        shown.append(Panel(words, _drawn(seen, method, report.indices[0][0].tolist(), side), answer))
    return shown


def _drawn(seen: Image.Image, method: Any, kept: Sequence[int], side: int) -> np.ndarray:
    """What is left of the image under a method: the kept patches, or the smaller picture."""
    if not getattr(method, "resizes", False):
        return faded(seen, kept, (side, side))
    rows, columns = method.resized(side, side)
    smaller = seen.resize((seen.width * columns // side, seen.height * rows // side), Image.Resampling.BICUBIC)
    frame = Image.new("RGB", seen.size, "white")
    frame.paste(smaller)
    return np.asarray(frame)


def draw(panels: Sequence[Panel], file: Path | IO[bytes], question: str = "", dpi: int = 110) -> None:
    """Write the panels side by side as one picture.

    Args:
        file: path, whose ending says the format; or an open file, which gets a PNG.
        question: written above the panels.
        dpi: pixels per inch; a panel is 3.1 inches wide.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.9), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.imshow(panel.pixels)
        axis.set_title(panel.title, fontsize=11)
        axis.set_xlabel(panel.caption, fontsize=11, wrap=True)
        axis.set_xticks([])
        axis.set_yticks([])
    if question:
        figure.suptitle(question, fontsize=12)
    figure.tight_layout()
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=dpi)
    pyplot.close(figure)
