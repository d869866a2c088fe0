"""Where the visual tokens of a batch of prompts are: per sample, per image, read off the token ids once."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from llava.reduction.groups import Groups
from llava.reduction.tensors import to_device

Lengths = Sequence[int] | int | None
"""Visual tokens per image: one number for all, a list over all images of the batch (samples in order), or None: every
unbroken run of placeholders is one image."""


@dataclass(frozen=True)
class Layout:
    """B prompts of N columns.

    Args:
        image: (B, N) number of the image a column belongs to, within its sample; -1 for text and padding.
        real: (B, N) False at padding.
        host_image, host_real, host_ids: the same and the token ids, on the CPU.
        newlines: per sample and image, offsets within the image of visual tokens that only end a row.
    """

    image: Tensor
    real: Tensor
    host_image: Tensor
    host_real: Tensor
    host_ids: Tensor
    newlines: tuple[tuple[Tensor, ...], ...] = ()

    @staticmethod
    def read(
        ids: Tensor,
        real: Tensor | None,
        placeholders: Sequence[int],
        lengths: Lengths | Mapping[int, Lengths],
        newlines: Sequence[Sequence[int]] | None = None,
    ) -> Layout:
        """Find the images; waits for the device once.

        Args:
            ids: (B, N) token ids of the prompts, every image standing as a run of placeholder ids.
            real: (B, N) bool, False at padding; None: no padding.
            placeholders: token ids that stand for visual tokens.
            lengths: see `Lengths`; or one of those for each placeholder id, where images and videos have different ones
                (a video counts as one image).
            newlines: offsets within every image of the batch (samples in order) of tokens that only end a row.
        """
        device = ids.device
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.expand_as(ids)
        host_ids, host_real = torch.stack([ids, real.to(ids.dtype)]).cpu().unbind(0)
        host_real = host_real.bool()
        if isinstance(lengths, Mapping):
            kinds = [_number_images((host_ids == token) & host_real, lengths.get(token)) for token in placeholders]
            host_image = _interleave(kinds)
        else:
            visual = torch.isin(host_ids, torch.tensor(tuple(placeholders), dtype=host_ids.dtype)) & host_real
            host_image = _number_images(visual, lengths)
        ends = _per_sample(newlines, host_image)
        return Layout(to_device(host_image, device), real, host_image, host_real, host_ids, ends)

    @cached_property
    def lengths(self) -> list[int]:
        """Real tokens per sample."""
        return self.host_real.sum(1).tolist()

    @cached_property
    def visual(self) -> list[list[int]]:
        """Visual tokens of every image, per sample."""
        return [torch.bincount(row[row >= 0]).tolist() for row in self.host_image]

    @cached_property
    def text_after(self) -> list[int]:
        """Text tokens after the last visual token, per sample."""
        after = (self.host_image >= 0).flip(1).cumsum(1).flip(1) == 0
        return (after & self.host_real).sum(1).tolist()

    @property
    def has_images(self) -> bool:
        return any(self.visual)

    def members(self, together: bool) -> list[tuple[int, int]]:
        """Selection problems as (sample, image); image -1 stands for all images of the sample."""
        if together:
            return [(sample, -1) for sample, images in enumerate(self.visual) if images]
        return [(sample, image) for sample, images in enumerate(self.visual) for image in range(len(images))]

    def counts(self, together: bool) -> list[int]:
        """Visual tokens of the whole prompt per selection problem."""
        return [sum(self.visual[s]) if image < 0 else self.visual[s][image] for s, image in self.members(together)]

    def groups(self, together: bool, image: Tensor, real: Tensor, n_visual: Sequence[int], layer: int) -> Groups:
        """Return the selection problems among the columns alive: one per image, or one per sample.

        Args:
            together: whether all images of a prompt are one problem.
            image, real: (B, S) of the columns alive, see the class.
            n_visual: visual tokens alive per problem.
            layer: decoder layer whose input is cut.
        """
        members = self.members(together)
        n_text = [self.text_after[sample] for sample, _ in members]
        n_images = [len(self.visual[sample]) if image_number < 0 else 1 for sample, image_number in members]
        n_prompt = self.counts(together)
        return Groups.build(image, real, members, n_visual, n_text, n_images, layer=layer, n_prompt=n_prompt)

    def spread(self, values: Tensor) -> Tensor:
        """Put (T,) values, one per visual token of the batch in the order of the prompts, at their columns: (B, N)."""
        visual = self.image >= 0
        rank = visual.flatten().cumsum(0).view_as(visual) - 1
        return values[rank.clamp_min(0)].masked_fill(~visual, 0)

    def seeds(self, together: bool) -> list[int]:
        """One integer per selection problem; a function of the sample's own token ids, not of the batch around it."""
        own = [zlib.crc32(ids[real].numpy().tobytes()) for ids, real in zip(self.host_ids, self.host_real, strict=True)]
        return [own[sample] + 1 + image for sample, image in self.members(together)]


def _number_images(visual: Tensor, lengths: Lengths) -> Tensor:
    """(B, N) bool -> (B, N) number of the image within the sample, -1 elsewhere."""
    if lengths is None:
        starts = visual & ~torch.nn.functional.pad(visual, (1, -1))
        number = starts.cumsum(1) - 1
    elif isinstance(lengths, int):
        number = (visual.cumsum(1) - 1) // lengths
    else:
        flat = torch.repeat_interleave(torch.tensor(lengths))
        rank = visual.flatten().cumsum(0).view_as(visual) - 1
        if flat.numel() != int(visual.sum()):
            return _number_images(visual, None)  # features and placeholders differ: the model itself will complain
        number = flat[rank.clamp(0, max(flat.numel() - 1, 0))] if flat.numel() else rank
        number = number - number.masked_fill(~visual, torch.iinfo(number.dtype).max).amin(1, keepdim=True)
    return number.masked_fill(~visual, -1)


def _interleave(kinds: list[Tensor]) -> Tensor:
    """Numbers of several kinds of images, (B, N) each -> (B, N) numbers in the order in which the images begin."""
    merged = torch.full_like(kinds[0], -1)
    for kind, numbers in enumerate(kinds):
        merged = torch.where(numbers >= 0, numbers * len(kinds) + kind, merged)
    for row in merged:
        keys, lengths = torch.unique_consecutive(row, return_counts=True)
        order: dict[int, int] = {}
        renumbered = [-1 if key < 0 else order.setdefault(key, len(order)) for key in keys.tolist()]
        row.copy_(torch.tensor(renumbered).repeat_interleave(lengths))
    return merged


def _per_sample(newlines: Sequence[Sequence[int]] | None, host_image: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """Offsets of all images of a batch -> per sample and image; empty where there are none, or for other images."""
    counts = [int(row.max()) + 1 if len(row) else 0 for row in host_image]
    if newlines is None or len(newlines) != sum(counts):
        return ()
    own = iter(newlines)
    return tuple(tuple(torch.tensor(next(own), dtype=torch.long) for _ in range(count)) for count in counts)
