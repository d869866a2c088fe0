"""Selection problems made by hand: where the image is in a sample, and padded batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llava.reduction import Groups, LayerState
from llava.reduction.attention import RecordedRows


def problems(
    spans: Sequence[tuple[int, int, int]], layer: int = 2, n_prompt: Sequence[int] | None = None
) -> tuple[Groups, Tensor]:
    """Left-padded samples of one image each, given as (tokens before, visual tokens, tokens after).

    Returns:
        the problems and (B,) the padding of each sample.
    """
    longest = max(map(sum, spans))
    image, real = torch.full((len(spans), longest), -1), torch.zeros(len(spans), longest, dtype=torch.bool)
    pads = torch.tensor([longest - sum(span) for span in spans])
    for row, (before, visual, _) in enumerate(spans):
        real[row, pads[row] :] = True
        image[row, pads[row] + before : pads[row] + before + visual] = 0
    members = [(row, 0) for row in range(len(spans))]
    counts = [[span[part] for span in spans] for part in (1, 2)]
    return Groups.build(image, real, members, *counts, [1] * len(spans), layer=layer, n_prompt=n_prompt), pads


def rows_state(groups: Groups, rows: Tensor, hidden: Tensor | None = None, **more) -> LayerState:
    """The state of a cut where (R, H, Q, L) probabilities are known."""
    n_queries = rows.shape[2]
    if n_queries == 1:
        columns, valid = groups.last[:, None], torch.ones(len(rows), 1, dtype=torch.bool)
    else:
        columns, valid = groups.text_columns, groups.text_valid
    hidden = torch.zeros(len(rows), 1, 1) if hidden is None else hidden
    return LayerState(groups.layer, hidden, groups, attention=RecordedRows(rows, valid, columns), **more)
