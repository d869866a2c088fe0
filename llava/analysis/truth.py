"""Scenes that no training saw, and which visual tokens lie on their things, their sign and its letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from llava.report.overlay_boards import Board
from llava.train import questions as ask
from llava.train.data import through_jpeg
from llava.train.mini_scenes import JPEG, SEED, free_scene
from llava.train.scenes import Scene, draw_scene

if TYPE_CHECKING:
    from llava.train.scenes import Sign

STREAM = 101
"""Apart from the streams of the mini benchmarks, which share their seed; training draws from other seeds."""
FEWEST, SIGNS = 3, 0.6  # things of a scene at least; share of scenes with a sign
THING, PLATE, BARE = 0.35, 0.5, 0.02
"""Share of a cell that has to be covered by a thing (as in the dense labels), by the sign; at most, of a bare one."""


@dataclass(frozen=True)
class Example:
    """A scene, its image as a JPEG file would hold it, and a question about one of its things.

    Args:
        owner: (H, W) what covers each pixel: 0 background, 1 + number of a thing, -1 the sign.
        asked: number of the thing the question names.
    """

    scene: Scene
    image: Image.Image
    owner: np.ndarray
    question: str
    asked: int


def examples(number: int) -> list[Example]:
    """Return held-out scenes, always the same ones in the same order."""
    rng = np.random.default_rng([SEED, STREAM])
    found: list[Example] = []
    while len(found) < number:
        scene = free_scene(rng, FEWEST, SIGNS)
        if not scene.things:
            continue
        asked = int(rng.integers(len(scene.things)))
        question = f"Is there {ask.article(scene.things[asked].name)} in the image?{ask.SHORT}"
        image, owner = draw_scene(scene)
        found.append(Example(scene, through_jpeg(image, JPEG["quality"]), owner, question, asked))
    return found


@dataclass(frozen=True)
class Truth:
    """Visual tokens of one image by what they show; lists of offsets.

    Args:
        things: of every thing.
        asked: number of the thing the question names.
        sign: of the sign's plate; empty without a sign.
        letters: of every character on it.
        background: those that show nothing of the former.
    """

    things: tuple[np.ndarray, ...]
    asked: int
    sign: np.ndarray
    letters: tuple[np.ndarray, ...]
    background: np.ndarray


def truth(example: Example, seen: Sequence[Board]) -> Truth:
    """Return what the visual tokens of an image show, over all boards that show the whole of it.

    Args:
        seen: from `llava.report.overlay_boards.boards`; square images fill every board.
    """
    parts = [_on_board(example, board.tokens) for board in seen]
    return Truth(
        things=tuple(np.concatenate(own) for own in zip(*(part.things for part in parts), strict=True)),
        asked=example.asked,
        sign=np.concatenate([part.sign for part in parts]),
        letters=tuple(np.concatenate(own) for own in zip(*(part.letters for part in parts), strict=True)),
        background=np.concatenate([part.background for part in parts]),
    )


def cell_shares(owner: np.ndarray, grid: tuple[int, int], n_things: int) -> np.ndarray:
    """Return (2 + n_things, rows * columns): share of each cell covered by the sign, by nothing, by each thing."""
    rows, columns = grid
    row = np.arange(owner.shape[0]) * rows // owner.shape[0]
    column = np.arange(owner.shape[1]) * columns // owner.shape[1]
    cell = row[:, None] * columns + column
    counts = np.bincount(
        ((owner.astype(int) + 1) * rows * columns + cell).ravel(), minlength=(2 + n_things) * rows * columns
    ).reshape(2 + n_things, rows * columns)
    return counts / counts.sum(0)


def _on_board(example: Example, tokens: np.ndarray) -> Truth:
    scene, grid = example.scene, (tokens.shape[0], tokens.shape[1])
    shares = cell_shares(example.owner, grid, len(scene.things))
    flat = tokens.ravel()
    # A thing too thin to cover any cell that far still has one: the one it covers most.
    things = [np.flatnonzero(own > min(THING, own.max() * 0.999)) for own in shares[2:]]
    letters = [] if scene.sign is None else _letters(scene.sign, scene.canvas, grid)
    return Truth(
        things=tuple(flat[cells] for cells in things),
        asked=example.asked,
        sign=flat[shares[0] > PLATE],
        letters=tuple(flat[cells] for cells in letters),
        background=flat[shares[1] > 1 - BARE],
    )


def _letters(sign: Sign, canvas: int, grid: tuple[int, int]) -> list[Any]:
    """Cells whose middle lies in the box of each character."""
    rows, columns = grid
    y, x = (np.arange(rows) + 0.5) * canvas / rows, (np.arange(columns) + 0.5) * canvas / columns
    found = []
    for left, top, right, bottom in sign.characters:
        inside = ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None]
        found.append(np.flatnonzero(inside))
    return found
