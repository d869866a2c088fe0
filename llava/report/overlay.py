"""Pictures of the kept tokens: the image with every dropped patch faded, one panel for each method."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from torch import Tensor

from llava.report.overlay_boards import WHOLE, Board, boards

FADE = 0.82  # share of white over a dropped patch
KEPT, DROPPED, EDGE = (0, 114, 178), (214, 214, 214), (213, 94, 0)  # markers, and the seams between tiles
GAP = 10  # pixels between two boards
SEAM = 336  # pixels of a board's height for each pixel of a seam's width
PANEL, ACROSS, WORDS = 3.1, 15.5, 6.6  # inches of a panel and of a row of them; characters per inch of a caption
SPACE, HEAD, LINE = 0.15, 0.32, 0.2  # inches between panels, of a title and of a line of text
LEGEND = {
    "newline": "Squares at the end of a row: its newline token, blue if kept.",
    "class": "Square above a frame: its class token, blue if kept.",
    "tiles": "Left: the map of tiles, orange lines between tiles. Right: the whole image as one tile.",
}


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: title, the pixels shown, the text below, and how to read its markers."""

    title: str
    pixels: np.ndarray
    caption: str = ""
    legend: tuple[str, ...] = ()


def faded(image: Image.Image, kept: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
    """Return the image (height, width, 3; uint8) with the patches that are not in `kept` almost white.

    Args:
        image: as the vision tower sees it.
        kept: indices of patches, row by row.
        grid: rows and columns of patches.
    """
    rows, columns = grid
    return faded_cells(np.asarray(image.convert("RGB")), np.arange(rows * columns).reshape(grid), kept)


def faded_cells(pixels: np.ndarray, tokens: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Return the pixels (H, W, 3; uint8) with the cells (rows, columns) whose token is not in `kept` almost white."""
    rows, columns = tokens.shape
    alive = np.isin(tokens, np.asarray(kept, dtype=int))
    row = np.arange(pixels.shape[0]) * rows // pixels.shape[0]
    column = np.arange(pixels.shape[1]) * columns // pixels.shape[1]
    mask = alive[row][:, column][..., None]
    own = pixels.astype(np.float32)
    return np.where(mask, own, own * (1 - FADE) + 255 * FADE).astype(np.uint8)


def tower_image(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Return what the vision tower sees, (3, S, S) normalised, as an image again."""
    channels = pixels.float().cpu().permute(1, 2, 0).numpy() * np.asarray(std) + np.asarray(mean)
    return Image.fromarray((channels * 255).round().clip(0, 255).astype(np.uint8))


def panels(
    model: Any,
    processor: Any,
    image: Image.Image | None,
    question: str,
    methods: Mapping[str, Any],
    max_new_tokens: int = 32,
    *,
    video: Any = None,
) -> list[Panel]:
    """Answer `question` under every method and show what each kept.

    Args:
        image: RGB; None with a video.
        methods: title -> method.
        video: path of a file, or frames; instead of the image.

    Raises:
        BadInput: it is not known where the visual tokens of this family stand.
    """
    shown = []
    for title, method in methods.items():
        inputs = prepared(processor, image, question, video).to(model.device)
        (seen,) = boards(model, processor, inputs)
        with method(model) as pruning:
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answer = processor.decode(output[:, inputs["input_ids"].shape[1] :])[0]
        report = pruning.last
        mean = f" (mean {report.mean_over_layers[0]:.0f})" if len(report.cut_layers) > 1 else ""
        words = f"{title}: {report.final[0]} of {report.visual[0]}{mean}"
        resized = method.resized if getattr(method, "resizes", False) else None
        pixels = composed(seen, report.indices[0][0].tolist(), resized)
        shown.append(Panel(words, pixels, answer, legend_of(seen)))
    return shown


def prepared(processor: Any, image: Image.Image | None, question: str, video: Any = None) -> Any:
    """Return the model's inputs for a question about one image or one video."""
    if video is not None:
        return processor([processor.prompt(question, n_images=0, n_videos=1)], videos=[[video]])
    return processor([processor.prompt(question)], [[image]])


# ------------------------------------------------------------------------------------------------- boards to pixels


def composed(seen: Sequence[Board], kept: Sequence[int], resized: Any = None) -> np.ndarray:
    """Return all boards of an image or video as one picture, (H, W, 3) uint8, dropped cells faded.

    Tiles stand left of the whole image; frames stand in rows. Newline and class tokens are squares of one cell.

    Args:
        seen: from `boards`.
        kept: offsets of the tokens kept.
        resized: rows, columns -> rows, columns the picture was made smaller to; None: it was not.
    """
    ordered = sorted(seen, key=lambda board: board.name == WHOLE)
    drawn = [_drawn(board, kept, resized) for board in ordered]
    across = len(drawn) if len(drawn) <= 8 else int(np.ceil(np.sqrt(2 * len(drawn))))
    rows = [_beside(drawn[first : first + across]) for first in range(0, len(drawn), across)]
    return _below(rows)


def legend_of(seen: Sequence[Board]) -> tuple[str, ...]:
    """How to read the markers of the boards, one sentence each."""
    found = {
        "tiles": any(board.name == WHOLE for board in seen),
        "newline": any(len(board.row_ends) for board in seen),
        "class": any(board.class_token >= 0 for board in seen),
    }
    return tuple(LEGEND[name] for name, there in found.items() if there)


def _drawn(board: Board, kept: Sequence[int], resized: Any) -> np.ndarray:
    rows, columns = board.tokens.shape
    if resized is not None:
        down, across = resized(rows, columns)
        return _smaller(board.pixels, down / rows, across / columns)
    pixels = faded_cells(board.pixels, board.tokens, kept)
    height, width = pixels.shape[:2]
    thick = max(1, height // SEAM)
    for cell in board.edges[0]:
        pixels[max(0, cell * height // rows - thick) : cell * height // rows + thick] = EDGE
    for cell in board.edges[1]:
        pixels[:, max(0, cell * width // columns - thick) : cell * width // columns + thick] = EDGE
    if len(board.row_ends):
        alive = np.isin(board.row_ends, np.asarray(kept, dtype=int))
        side = max(3, height // rows)
        strip = np.full((height, 2 * side, 3), 255, np.uint8)
        for row, there in enumerate(alive):
            top, bottom = row * height // rows, (row + 1) * height // rows
            strip[top : max(top + 1, bottom - max(1, side // 6)), side // 2 : side // 2 + side] = (
                KEPT if there else DROPPED
            )
        pixels = np.concatenate([pixels, strip], 1)
    if board.class_token >= 0:
        side = max(3, height // rows)
        strip = np.full((side + max(2, side // 4), pixels.shape[1], 3), 255, np.uint8)
        strip[:side, :side] = KEPT if board.class_token in kept else DROPPED
        pixels = np.concatenate([strip, pixels])
    return pixels


def _smaller(pixels: np.ndarray, down: float, across: float) -> np.ndarray:
    """The picture made smaller, in the corner of a white one of the old size."""
    size = int(pixels.shape[1] * across), int(pixels.shape[0] * down)
    frame = np.full_like(pixels, 255)
    frame[: size[1], : size[0]] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return frame


def _beside(drawn: Sequence[np.ndarray]) -> np.ndarray:
    height = max(len(one) for one in drawn)
    parts = []
    for one in drawn:
        filler = np.full((height - len(one), one.shape[1], 3), 255, np.uint8)
        parts += [np.concatenate([one, filler]), np.full((height, GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], 1)


def _below(rows: Sequence[np.ndarray]) -> np.ndarray:
    turned = _beside([row.transpose(1, 0, 2) for row in rows])
    return turned.transpose(1, 0, 2)


# ------------------------------------------------------------------------------------------------------ the picture


def draw(panels: Sequence[Panel], file: Path | IO[bytes], question: str = "", dpi: int = 110) -> None:
    """Write the panels as one picture: side by side, in several rows when they are many or wide.

    Args:
        file: path, whose ending says the format; or an open file, which gets a PNG.
        question: written above the panels.
        dpi: pixels per inch; a square panel is 3.1 inches wide.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    aspect = max(1.0, *(panel.pixels.shape[1] / panel.pixels.shape[0] for panel in panels))
    width = min(PANEL * aspect, ACROSS)
    n_rows = -(-len(panels) // max(1, int(ACROSS / width)))
    shape = n_rows, -(-len(panels) // n_rows)
    captions = [_wrapped(panel.caption, width) for panel in panels]
    legend = " ".join(dict.fromkeys(sentence for panel in panels for sentence in panel.legend))
    if n_rows == 1 and not legend:
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(width * len(panels), width / aspect + 0.8), squeeze=False
        )
        places = list(axes[0])
    else:
        figure, places = _rows(pyplot, shape, (width, width / aspect), captions, question, legend)
    for axis, panel, caption in zip(places, panels, captions, strict=False):
        axis.imshow(panel.pixels)
        axis.set_title(panel.title, fontsize=11)
        axis.set_xlabel(caption, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(not panel.legend)
    if n_rows == 1 and not legend:
        if question:
            figure.suptitle(question, fontsize=12)
        figure.tight_layout()
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=dpi)
    pyplot.close(figure)


def _rows(
    pyplot: Any,
    shape: tuple[int, int],
    panel: tuple[float, float],
    captions: Sequence[str],
    question: str,
    legend: str,
) -> tuple[Any, list[Any]]:
    """A figure with axes of the panels' size in rows, reading order, with room for every line of text (in inches)."""
    (n_rows, n_columns), (width, height) = shape, panel
    across = n_columns * (width + SPACE) + SPACE
    foot = textwrap.wrap(legend, int(across * WORDS * 2))
    top, bottom = (0.55 if question else 0.1), 0.15 + LINE * len(foot)
    line_count = max(caption.count("\n") + 1 for caption in captions)
    pitch = HEAD + height + LINE * (line_count + 1)
    down = top + n_rows * pitch + bottom
    figure = pyplot.figure(figsize=(across, down))
    places = []
    for number in range(len(captions)):
        row, column = divmod(number, n_columns)
        left, lower = SPACE + column * (width + SPACE), down - top - row * pitch - HEAD - height
        places.append(figure.add_axes((left / across, lower / down, width / across, height / down)))
    if question:
        figure.text(0.5, 1 - 0.12 / down, question, ha="center", va="top", fontsize=12)
    figure.text(0.5, 0.1 / down, "\n".join(foot), ha="center", va="bottom", fontsize=9, color="#555555")
    return figure, places


def _wrapped(text: str, inches: float) -> str:
    """The text in lines that fit below a panel, three at most."""
    return "\n".join(textwrap.wrap(text, int(inches * WORDS * 1.4), max_lines=3, placeholder=" ..."))
