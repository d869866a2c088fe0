"""How the figures look: one colour-blind-safe palette, one size, and files that are the same at every drawing."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.errors import ConfigurationError

# Okabe and Ito's colours, which differ for every kind of colour vision; the yellow is left out (too pale for lines).
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY, PALE, INK = "#8A8A8A", "#E6E6E6", "#222222"
METHODS = {
    "none": ("unpruned", BLACK, "*"),
    "dart": ("DART", VERMILION, "o"),
    "random": ("random", GREY, "X"),
    "fastv": ("FastV", BLUE, "s"),
    "sparsevlm": ("SparseVLM", GREEN, "^"),
    "mustdrop": ("MustDrop", PURPLE, "D"),
}
"""Method -> name in a legend, colour, marker."""
SEQUENCE = ("#08306B", "#2171B5", "#6BAED6", "#9EBCDA")
"""Ordered colours for budgets, from dark to light."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 9.0  # inches: shown 900 pixels wide, a point of type is 1.4 pixels
DPI = 160
PALETTE = 256  # colours in a PNG
SALT = "llava-figures"
LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text has the same width everywhere
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.labelsize": 10.5,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": SALT,
    "svg.fonttype": "path",
}


@contextlib.contextmanager
def drawing() -> Iterator[Any]:
    """Within the block `matplotlib.pyplot` draws in this style, without a screen; figures are closed at its end.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigurationError("Pictures need matplotlib: pip install 'llava-dart[report]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    usual: Any = matplotlib.rcParamsDefault
    chosen: Any = {**usual, **LOOK, "backend": "Agg"}
    with matplotlib.rc_context(chosen):
        before = set(pyplot.get_fignums())
        try:
            yield pyplot
        finally:
            for number in set(pyplot.get_fignums()) - before:
                pyplot.close(number)


def save(figure: Any, stem: Path, palette: bool = False) -> list[Path]:
    """Write `stem`.png and `stem`.svg; the same figure gives the same bytes.

    Args:
        palette: write the PNG with few colours, which makes one of photographs four times smaller.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=DPI, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_bytes(_small(content) if palette and ending == "png" else content.getvalue())
        written.append(path)
    return written


def _small(png: io.BytesIO) -> bytes:
    """The picture with a palette; this way of choosing colours moves none of them far."""
    from PIL import Image

    small = io.BytesIO()
    picture = Image.open(png).convert("RGB").quantize(PALETTE, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()


def method_name(name: str) -> str:
    """The name of a method in a legend."""
    return METHODS.get(name, (name,))[0]


def bar_label(axis: Any, bars: Any, digits: int = 0) -> None:
    """Write the height above every bar."""
    from matplotlib import patheffects

    rim = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    for text in axis.bar_label(bars, fmt=f"{{:.{digits}f}}", padding=1.5, fontsize=8.5):
        text.set_path_effects(rim)
