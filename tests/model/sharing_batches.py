"""Batches of questions about few images, on the tiny LLaVA: the same words before the image, another question after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.tiny import IMAGE, N_PATCHES, PAD, SIDE

WORDS_BEFORE = 5


def picture(number: int) -> Tensor:
    """(3, H, W), the same for the same number."""
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(100 + number))


def words(number: int, count: int) -> Tensor:
    """(count,) token ids, the same for the same number."""
    return torch.randint(10, 90, (count,), generator=torch.Generator().manual_seed(number))


def questions(asked: list[int], images: list[int | None] | None = None) -> dict[str, Any]:
    """Return a left-padded batch: question numbers (4 to 7 tokens each) and the picture of each; None is none."""
    images = [0] * len(asked) if images is None else images
    rows = []
    for question, image in zip(asked, images, strict=True):
        shown = torch.full((0 if image is None else N_PATCHES,), IMAGE)
        rows.append(torch.cat([words(0, WORDS_BEFORE), shown, words(question, 4 + question % 4)]))
    longest = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=PAD) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    batch = {"input_ids": ids, "attention_mask": mask}
    pictures = [picture(image) for image in images if image is not None]
    return {**batch, "pixel_values": torch.stack(pictures)} if pictures else batch
