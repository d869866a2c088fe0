"""The picture of a method's page: what is left of one image at several budgets, with the embedded model's answers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from llava.report import overlay

COLOURS, ROUNDS = 48, 3
"""Size of the palette, which keeps the files small, and rounds of improving it."""
INCH = 75  # pixels
WHOLE = "all"


def write(
    path: Path, model: Any, processor: Any, image: Image.Image, question: str, methods: Mapping[str, Any]
) -> None:
    """Draw the unpruned image and what every method leaves of it, side by side, and write a PNG with a palette.

    Args:
        path: file to write; the same inputs give the same bytes.
        methods: title of the panel -> method.
    """
    from llava.reduction import NoReduction

    panels = overlay.panels(model, processor, image, question, {WHOLE: NoReduction(), **methods})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_png(panels, question))


def small_png(panels: Sequence[overlay.Panel], question: str) -> bytes:
    """The panels as a PNG with few colours and without any metadata."""
    drawn = io.BytesIO()
    overlay.draw(panels, drawn, question, dpi=INCH)
    # This way of choosing colours keeps rare ones, such as a small bright shape on a large textured ground.
    picture = (
        Image.open(drawn)
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.FASTOCTREE, kmeans=ROUNDS, dither=Image.Dither.NONE)
    )
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()
