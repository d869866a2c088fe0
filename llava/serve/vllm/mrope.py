"""Original (time, row, column) positions for some of an image's tokens, in vLLM's terms; needs no vLLM.

vLLM numbers a prompt before it has encoded the images, when nobody knows yet which tokens will be kept. Everything but
the rows and columns of the kept tokens is known by then: `prompt_positions` gives it. The rows and columns ride along
with the kept tokens' features (`packed`), whose type may be too coarse for whole numbers beyond 256, so each number
is written as two digits; `unpacked` reads them, and `with_places` puts them into the prompt's positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 128  # digits below it are exact in bfloat16
CHANNELS = 4  # row and column, two digits each


@dataclass(frozen=True)
class Media:
    """An image or video in a prompt.

    Args:
        offset: column of its first token.
        length: how many of its tokens stand in the prompt.
        grid: (frames, rows, columns) of all its tokens.
        frame_step: time between two frames.
    """

    offset: int
    length: int
    grid: tuple[int, int, int]
    frame_step: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether none of its tokens was dropped."""
        frames, rows, columns = self.grid
        return self.length == frames * rows * columns

    @property
    def extent(self) -> int:
        """By how much the numbering of the text goes on after it, as if it were whole."""
        frames, rows, columns = self.grid
        return max(int((frames - 1) * self.frame_step) + 1, rows, columns)


def prompt_positions(n_tokens: int, media: Iterable[Media]) -> tuple[Tensor, int]:
    """Number the tokens of a prompt as an unpruned one is numbered.

    Args:
        n_tokens: tokens of the prompt N, dropped ones not counted.
        media: its images and videos, by offset.

    Returns:
        (3, N) positions, where every token of an image that is not whole has the image's first position for time, row
        and column; and by how much the position of the first generated token is above N.
    """
    parts, column, number = [], 0, 0
    for item in media:
        parts.append(_text(item.offset - column, number))
        number += item.offset - column
        parts.append((_grid(item) if item.whole else torch.zeros(3, item.length, dtype=torch.long)) + number)
        number += item.extent
        column = item.offset + item.length
    parts.append(_text(n_tokens - column, number))
    return torch.cat(parts, 1), number - column


def packed(features: Tensor, indices: Tensor | None, grid: tuple[int, int, int]) -> Tensor:
    """Append rows and columns to features: (K, D) -> (K, D + CHANNELS).

    Args:
        features: of the tokens that go on.
        indices: (K,) which tokens of the grid they are; None: all of them in order.
        grid: (frames, rows, columns) of all tokens.
    """
    frames, rows, columns = grid
    places = torch.arange(frames * rows * columns, device=features.device) if indices is None else indices
    row, column = places // columns % rows, places % columns
    digits = [row // BASE, row % BASE, column // BASE, column % BASE]
    return torch.cat([features, torch.stack(digits, 1).to(features.dtype)], 1)


def unpacked(packed_features: Tensor) -> tuple[Tensor, Tensor]:
    """(K, D + CHANNELS) -> the features (K, D), and their rows and columns (2, K)."""
    digits = packed_features[:, -CHANNELS:].long().T
    return packed_features[:, :-CHANNELS], torch.stack([digits[0] * BASE + digits[1], digits[2] * BASE + digits[3]])


def with_places(positions: Tensor, ids: Tensor, n_done: int, items: Sequence[Tensor], image: int, video: int) -> Tensor:
    """Fill in the rows and columns of kept tokens; done twice, it changes nothing.

    Args:
        positions: (3, N) of the prompt; the time of an image's tokens is right, and where rows and columns begin.
        ids: (N,) token ids of the prompt.
        n_done: tokens of the prompt that were computed before; `items` are of the visual tokens that come next.
        items: (2, K) rows and columns of each image or video, or of the part of it that is computed now.
        image, video: ids of the visual tokens; those of videos are numbered already.

    Returns:
        (3, N), a new tensor.
    """
    columns = ((ids == image) | (ids == video)).nonzero()[:, 0]
    columns = columns[columns >= n_done][: sum(item.shape[1] for item in items)].to(positions.device)
    result = positions.clone()
    of_image = (ids.to(positions.device)[columns] == image)[None]
    places = torch.cat(list(items), 1).to(positions) if items else result.new_zeros(2, 0)
    result[1:, columns] = torch.where(of_image, positions[:1, columns] + places, positions[1:, columns])
    return result


def _text(n_tokens: int, first: int) -> Tensor:
    return (torch.arange(n_tokens) + first).expand(3, -1)


def _grid(item: Media) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(size) for size in item.grid), indexing="ij")
    numbers = torch.stack([axis.flatten() for axis in axes])
    numbers[0] = (numbers[0] * item.frame_step).long()
    return numbers
