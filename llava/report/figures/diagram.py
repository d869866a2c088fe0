"""Figure 3: our own drawing of how DART works, on a toy picture that DART's own selection function prunes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llava.report.cells import Cell, Target
from llava.report.figures import style
from llava.report.figures.output import Drawn, write

if TYPE_CHECKING:
    from llava.report.store import Store

PICTURE = (
    "sssssss",
    "ssoosss",
    "ssoosss",
    "sssrsss",
    "sswwwss",
    "gbwdwgg",
    "gggdggg",
)
"""A toy picture, one letter per patch."""
COLOURS = {
    "s": (0.66, 0.83, 0.95),
    "o": (0.98, 0.80, 0.28),
    "r": (0.80, 0.36, 0.26),
    "w": (0.93, 0.89, 0.82),
    "d": (0.47, 0.32, 0.24),
    "g": (0.49, 0.70, 0.42),
    "b": (0.24, 0.42, 0.25),
}
MATERIALS = {"s": "sky", "o": "sun", "r": "roof", "w": "wall", "d": "door", "g": "grass", "b": "bush"}
PIVOTS, TEXT_PIVOTS, QUOTA = 2, 1, 4
N_TEXT = 4
LOUD = (8, 44, 49)
"""Tokens with the largest keys: a patch of sky, one of grass, and the first word."""
SIZE = 0.5  # of a patch in the drawing
SHADE = 0.02  # spread of the colours within a material
WIDTH, NOISE, SEED = 8, 0.12, 710
"""Made-up features: their width, their spread within a material, and the seed of a telling draw."""


@dataclass(frozen=True)
class Toy:
    """The toy picture and what DART keeps of it: `colours` (n, 3), `kept` and `pivots` indices into the patches."""

    colours: np.ndarray
    kept: tuple[int, ...]
    pivots: tuple[int, ...]
    side: int


def toy() -> Toy:
    """Prune the toy picture with the method's own function: its features are made up, alike within a material."""
    import torch

    from llava.reduction.dart import select_tokens

    rng = np.random.default_rng(SEED)
    letters = "".join(PICTURE)
    materials = rng.normal(size=(len(COLOURS) + 1, WIDTH))  # the last one is the text's
    materials /= np.linalg.norm(materials, axis=1, keepdims=True)
    number = {letter: place for place, letter in enumerate(COLOURS)}
    image = np.array([materials[number[letter]] for letter in letters]) + rng.normal(0, NOISE, (len(letters), WIDTH))
    text = materials[-1] + rng.normal(0, NOISE, (N_TEXT, WIDTH))
    visual = torch.arange(len(letters) + N_TEXT) < len(letters)
    norms = torch.zeros(len(visual), dtype=torch.float64)
    norms[list(LOUD)] = 1
    kept = select_tokens(
        torch.as_tensor(np.concatenate([image, text])),
        norms[:, None],
        visual,
        quota=QUOTA,
        pivots_visual=PIVOTS,
        pivots_text=TEXT_PIVOTS,
        order="norm",
    )
    colours = np.array([COLOURS[letter] for letter in letters]) + rng.normal(0, SHADE, (len(letters), 3))
    return Toy(colours.clip(0, 1), tuple(kept.tolist()), tuple(sorted(LOUD[:PIVOTS])), len(PICTURE))


@dataclass(frozen=True)
class Diagram:
    """Figure 3: the method, drawn; no data of a model is in it."""

    name: ClassVar[str] = "figure3"
    title: ClassVar[str] = "Figure 3: how DART works (our drawing)"

    def cells(self, target: Target) -> list[Cell]:
        """None."""
        return []

    def make(self, store: Store, output: Path) -> list[Path]:
        """Write the figure's files into a folder."""
        with style.drawing():
            return write(self.draw(), output, self.name)

    def draw(self) -> Drawn:
        """Draw the four steps from left to right."""
        from matplotlib import pyplot

        example = toy()
        figure, axis = pyplot.subplots(figsize=(style.WIDTH, 3.85))
        axis.set(xlim=(0, 18), ylim=(0, 7.7), aspect="equal")
        axis.axis("off")
        everything = range(len(example.colours))
        steps = (
            (0.35, "1  K layers as usual", "every token is seen", everything, (), 0),
            (4.85, "2  pivots", "tokens of image and text\nwith the largest keys (L1)", everything, example.pivots, 1),
            (
                9.35,
                "3  duplicates go",
                "each pivot claims the tokens\nleast similar to it (cosine)",
                example.kept,
                example.pivots,
                1,
            ),
        )
        for left, title, below, shown, pivots, text_pivots in steps:
            heading(axis, left + SIZE * example.side / 2, title, below)
            mosaic(axis, example, (left, 2.1), shown, pivots)
            text_row(axis, (left, 1.35), N_TEXT, text_pivots * TEXT_PIVOTS)
            arrow(axis, (left + 3.6, 3.8), (left + 4.3, 3.8))
        heading(axis, 15.75, "4  layers K and up", "text and kept tokens only,\nat their old positions")
        stack(axis, example)
        dropped = len(example.colours) - len(example.kept)
        note = (
            f"This toy picture: {len(example.colours)} visual tokens; {PIVOTS} visual and {TEXT_PIVOTS} text pivot "
            f"claim {QUOTA} tokens each; {len(example.kept)} kept, {dropped} dropped."
        )
        axis.text(9, 0.4, note, ha="center", va="center", fontsize=9.5, color="#555555")
        figure.subplots_adjust(0.005, 0.01, 0.995, 0.99)
        letters = "".join(PICTURE)
        rows = [
            {
                "material": material,
                "tokens": letters.count(letter),
                "kept": sum(letters[index] == letter for index in example.kept),
                "pivots": sum(letters[index] == letter for index in example.pivots),
            }
            for letter, material in MATERIALS.items()
        ]
        notes = [
            "Our own drawing, not the paper's. The kept patches are what the package's `select_tokens` chooses on the "
            "toy picture; its features are made up, alike within a material and unlike between two.",
            "As released: pivots take turns, and each claims those free tokens that are least similar to it.",
        ]
        return Drawn(figure, self.title, rows, notes, {"artefact": self.name, "kept": list(example.kept)})


def heading(axis: Any, x: float, title: str, below: str) -> None:
    """Write the title of a step and what happens in it, centred."""
    axis.text(x, 7.3, title, ha="center", va="center", fontsize=12, fontweight="bold")
    axis.text(x, 6.95, below, ha="center", va="top", fontsize=9.5, color="#555555", linespacing=1.25)


def mosaic(
    axis: Any, example: Toy, corner: tuple[float, float], shown: Sequence[int], pivots: Sequence[int] = ()
) -> None:
    """Draw the patches of the toy picture; dropped ones as empty places, pivots framed."""
    left, bottom = corner
    for index, colour in enumerate(example.colours):
        row, column = divmod(index, example.side)
        place = (left + column * SIZE, bottom + (example.side - 1 - row) * SIZE)
        if index in shown:
            tile(axis, place, SIZE, colour)
        else:
            tile(axis, place, SIZE, "white", edge="#C4C4C4", dashes=(0, (1.5, 1.5)))
        if index in pivots:
            tile(axis, place, SIZE, None, style.VERMILION, 2.4)


def text_row(axis: Any, corner: tuple[float, float], number: int, pivots: int) -> None:
    """Draw the text tokens below the picture; the first `pivots` of them framed."""
    for position in range(number):
        place = (corner[0] + position * SIZE, corner[1])
        tile(axis, place, SIZE, "#D9D9D9")
        axis.text(place[0] + SIZE / 2, place[1] + SIZE / 2, "T", ha="center", va="center", fontsize=8.5)
    for position in range(pivots):
        tile(axis, (corner[0] + position * SIZE, corner[1]), SIZE, None, style.VERMILION, 2.4)
    words, colour = ("framed: pivots", style.VERMILION) if pivots else ("text", "#555555")
    after = corner[0] + number * SIZE + 0.12
    axis.text(after, corner[1] + SIZE / 2, words, va="center", fontsize=9, color=colour)


def stack(axis: Any, example: Toy) -> None:
    """Draw the layers above the cut: rows of kept tokens and text, and the answer."""
    size, text = 0.2, 2
    width = (len(example.kept) + text) * size
    left = 15.75 - width / 2
    for level in range(5):
        y = 2.55 + level * 0.5
        for place, index in enumerate(example.kept):
            tile(axis, (left + place * size, y), size, example.colours[index], width=0.3)
        for place in range(len(example.kept), len(example.kept) + text):
            tile(axis, (left + place * size, y), size, "#D9D9D9", width=0.3)
    arrow(axis, (15.75, 4.95), (15.75, 5.4))
    axis.text(15.75, 5.5, "answer", ha="center", va="bottom", fontsize=9.5)
    below = "shorter prefill, smaller cache;\nno attention map is needed"
    axis.text(15.75, 2.2, below, ha="center", va="top", fontsize=9.5, color="#555555", linespacing=1.25)


def arrow(axis: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw the arrow between two steps."""
    look = {"arrowstyle": "-|>", "color": style.INK, "lw": 1.8, "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look)


def tile(
    axis: Any,
    place: tuple[float, float],
    size: float,
    colour: Any,
    edge: str = "white",
    width: float = 0.8,
    dashes: Any = "solid",
) -> None:
    """Draw one token; colour None draws its frame only."""
    from matplotlib.patches import FancyBboxPatch

    gap = 0.06 * size
    axis.add_patch(
        FancyBboxPatch(
            (place[0] + gap, place[1] + gap),
            size - 2 * gap,
            size - 2 * gap,
            boxstyle=f"round,pad=0,rounding_size={0.12 * size}",
            facecolor="none" if colour is None else colour,
            edgecolor=edge,
            linewidth=width,
            linestyle=dashes,
            zorder=3 if colour is None else 2,
        )
    )
