"""The shorter prompt a language model gets when tokens were chosen before it, and the way back to the whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llava.model.layout import Layout
from llava.model.stopwatch import Stopwatch
from llava.reduction.image import Kept
from llava.reduction.tensors import to_device

TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


@dataclass
class ShortPrompt:
    """B prompts of N columns, of which S go on.

    Args:
        layout: the whole prompt.
        ids, mask: (B, S) of the short one, left padded.
        positions: (B, S), or (k, B, S) where visual tokens have positions of several dimensions.
        shift: (B, 1) by how much positions at the end are smaller than in the whole prompt.
        source: (B, S) column of the whole prompt every column comes from.
        kept: what goes on of every image, per sample.
        stopwatch: time spent choosing.
        has_filler: whether samples differ in length.
        generating: whether generate(), which counts by the short prompt, is at work on it.
        handed_on: scores by name for later stages, (T,) each: one per visual token that goes on.
        encoded: by kind, what the model gets when it asks for the features of the images.
        units: by kind, digest and number of tokens of what goes on of every image, where that is known by content.
    """

    layout: Layout
    ids: Tensor
    mask: Tensor
    positions: Tensor
    shift: Tensor
    source: Tensor
    kept: list[list[Kept]]
    stopwatch: Stopwatch
    has_filler: bool
    generating: bool = False
    handed_on: dict[str, Tensor] = field(default_factory=dict)
    encoded: dict[str, Any] = field(default_factory=dict)
    units: dict[str, Any] = field(default_factory=dict)

    @property
    def n_columns(self) -> tuple[int, int]:
        """Columns of the whole prompt and of the short one: N, S."""
        return self.layout.host_ids.shape[1], self.ids.shape[1]

    def repeated(self, rows: int) -> list[list[Kept]]:
        """`kept` for a batch in which every sample stands several times in a row (beams)."""
        return [images for images in self.kept for _ in range(rows // len(self.kept))]

    def lengths(self, rows: int) -> list[int]:
        """Visual tokens of every image in the short prompts of `rows` rows."""
        return [kept.count for images in self.repeated(rows) for kept in images]

    def handed(self, rows: int) -> dict[str, Tensor]:
        """Scores by name for the stages to come, (T,) each: one per visual token of the short prompts."""
        if rows == len(self.kept):
            return dict(self.handed_on)
        counts = [sum(kept.count for kept in images) for images in self.kept]
        times = rows // len(self.kept)
        return {
            name: torch.cat([part for part in flat.split(counts) for _ in range(times)])
            for name, flat in self.handed_on.items()
        }

    def whole_lengths(self, rows: int) -> tuple[list[int], list[list[int]]]:
        """Real tokens, and visual tokens of every image, of the whole prompts of `rows` rows."""
        times = rows // len(self.kept)
        lengths, images = self.layout.lengths, self.layout.visual
        return [n for n in lengths for _ in range(times)], [row for row in images for _ in range(times)]

    def whole_indices(self, offsets: list[list[Tensor]]) -> list[list[Tensor]]:
        """Offsets within the images of the short prompts -> offsets within the whole images, on the CPU.

        Merged tokens without a place have none.
        """
        return [
            [_whole_offsets(one, own) for one, own in zip(images, row, strict=True)]
            for images, row in zip(self.repeated(len(offsets)), offsets, strict=True)
        ]

    def at_end(self, n_new: int, seen: Any) -> Tensor:
        """Positions of `n_new` tokens after the first `seen` columns: (B, n_new), or (k, B, n_new)."""
        after = torch.arange(1, n_new + 1, device=self.ids.device) + (seen - self.ids.shape[1])
        return self.positions[..., -1:] + after

    def continued_mask(self, mask: Tensor) -> Tensor:
        """A mask of the whole prompt and what follows, for the short prompt and what follows."""
        return torch.cat([self.mask, mask[:, self.n_columns[0] :].to(self.mask)], dim=1)


def shorten(
    layout: Layout, ids: Tensor, kept: list[list[Kept]], positions: Tensor, original: bool, pad: int, watch: Stopwatch
) -> ShortPrompt:
    """Leave of every image what was kept of it; one wait for the device was made by `layout`, none is made here.

    Args:
        layout: the whole prompt.
        ids: (B, N) its token ids.
        kept: what goes on of every image, per sample.
        positions: (B or 1, N) or (k, B, N) of the whole prompt.
        original: survivors keep their positions; else one-dimensional ones are counted anew without gaps.
        pad: token id for filler.
        watch: time spent choosing.
    """
    device = ids.device
    source, valid, has_filler = _sources(layout, kept, device)
    mask = valid.long()
    whole = positions.expand(*positions.shape[:-2], *ids.shape)
    place = source.expand(*whole.shape[:-1], source.shape[1])
    short = whole.gather(-1, place)
    shift = torch.zeros_like(short[..., -1:]) if short.ndim == 2 else source.new_zeros(1)
    if not original and positions.ndim == 2:
        first = whole.gather(1, layout.real.to(torch.int8).argmax(1, keepdim=True))
        anew = first + mask.cumsum(1) - 1
        shift = short[:, -1:] - anew[:, -1:]
        short = anew
    return ShortPrompt(
        layout=layout,
        ids=ids.gather(1, source).masked_fill(~valid, pad),
        mask=mask,
        positions=short.masked_fill(~valid, 0),
        shift=shift,
        source=source,
        kept=kept,
        stopwatch=watch,
        has_filler=has_filler,
        handed_on=_handed([one for images in kept for one in images]),
    )


def _sources(layout: Layout, kept: list[list[Kept]], device: torch.device) -> tuple[Tensor, Tensor, bool]:
    """Columns that go on, (B, S) with left filler, (B, S) bool False at filler, and whether there is any."""
    text, lengths, visual = [], [], []
    for row, images in enumerate(kept):
        text.append((layout.host_real[row] & (layout.host_image[row] < 0)).nonzero().squeeze(1))
        lengths.append(len(text[-1]) + sum(one.count for one in images))
    size = max(lengths)
    rows = torch.full((len(kept), size), -1)
    slots = []
    for row, images in enumerate(kept):
        start = size - lengths[row]
        rows[row, start : start + len(text[row])] = text[row]
        n_visual = sum(one.count for one in images)
        slots.append(row * size + torch.arange(size - n_visual, size))
        for number, one in enumerate(images):
            columns = (layout.host_image[row] == number).nonzero().squeeze(1)
            visual.append(_columns_of(columns, one, device))
    source = to_device(rows, device)
    if visual:
        source.view(-1)[to_device(torch.cat(slots), device)] = torch.cat(visual)
        source = source.sort(dim=1, stable=True).values
    return source.clamp_min(0), source >= 0, min(lengths) < size


def _columns_of(columns: Tensor, kept: Kept, device: torch.device) -> Tensor:
    """Prompt columns (on the host) of one image -> those its K tokens stand at (on the device)."""
    if kept.indices is not None:
        return to_device(columns, device)[kept.indices]
    # Tokens without a place of their own take the image's first columns, or its last one again if they are more.
    extra = max(kept.count - len(columns), 0)
    return to_device(F.pad(columns[None].float(), (0, extra), mode="replicate")[0].long()[: kept.count], device)


def _whole_offsets(kept: Kept, own: Tensor) -> Tensor:
    if kept.indices is not None:
        return kept.indices.cpu()[own]
    sources = own.new_full((kept.count,), -1) if kept.sources is None else kept.sources.cpu()
    return sources[own][sources[own] >= 0].sort().values


def _handed(kept: Sequence[Kept]) -> dict[str, Tensor]:
    names = {name for one in kept for name in one.handed}
    handed = {}
    for name in names:
        like = next(one.handed[name] for one in kept if name in one.handed)
        handed[name] = torch.cat([one.handed.get(name, like.new_zeros(one.count)) for one in kept])
    return handed
