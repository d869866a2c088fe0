"""Attention guidance for lettered options: while training, one head is shown which option it should look at.

To answer with a letter the model must find the option that says what it sees, then read the letter before it. Neither
step pays without the other, so the answers' loss alone stays on a plateau for thousands of steps. A loss on the
attention of one head (its share on the right option, from the place that predicts the letter) removes the plateau.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

LAYER = -2  # the last but one: what is seen is known by then, and one block is left to say the letter
OPTION = re.compile(r"([A-D])\. (.+)")


def option_spans(text: str, count: Callable[[str], int]) -> dict[str, tuple[int, int]]:
    """Letter -> first token of its option's words and one past the token that follows them, in the prompt `text`.

    The token that follows (a line's end, as a rule) belongs to it: the first that knows a whole option of many pieces.

    Args:
        count: number of tokens of a text, for beginnings of `text` that end where a token ends.
    """
    spans, before = {}, ""
    for line in text.splitlines(keepends=True):
        match = OPTION.match(line)
        if match:
            spans[match[1]] = count(f"{before}{match[1]}."), count(before + line.rstrip("\n")) + 1
        before += line
    return spans


class Guide:
    """Listens to the attention scores of one layer and keeps the loss of its first head.

    `looks` (n, 5), set before a forward pass: image, question block, token that predicts a letter, first token of the
    right option and one past its last, the last three counted from the block's start. None: nobody listens.
    """

    def __init__(self) -> None:
        self.looks: Tensor | None = None
        self.loss: Tensor | None = None

    def listen(self, scores: Tensor, n_shared: int) -> None:
        """scores (B, H, Q, T, n_shared + T), masked -> `loss`: mean of -log(share of the attention on the option)."""
        if self.looks is None or len(self.looks) == 0:
            return
        image, block, at, first, last = self.looks.to(scores.device).unbind(1)
        row = scores[image, 0, block, at].float()
        place = torch.arange(row.shape[1], device=row.device)[None] - n_shared
        outside = (place < first[:, None]) | (place >= last[:, None])
        self.loss = (row.logsumexp(1) - row.masked_fill(outside, -torch.inf).logsumexp(1)).mean()
