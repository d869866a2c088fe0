"""Selection problems of one cut: which columns of a padded batch compete with each other, one row per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.reduction.tensors import to_device


@dataclass(frozen=True)
class Groups:
    """R selection problems on a batch of B padded sequences of S columns.

    A problem is one image, or all images of one prompt, together with the text tokens that follow the prompt's last
    visual token. Rows shorter than the longest one are padded; `valid` and `text_valid` tell.

    Args:
        sample: (R,) row of the batch each problem belongs to.
        columns: (R, L) columns of the competing visual tokens, ascending.
        valid: (R, L) False where `columns` is padding.
        text_columns: (R, T) columns of the text tokens after the last visual token, ascending.
        text_valid: (R, T) False where `text_columns` is padding.
        first: (R,) column of the sample's first real token; absolute index = column - first.
        last: (R,) column of the sample's last real token.
        samples: `sample`, known on the host.
        layer: decoder layer whose input is cut.
        n_prompt: visual tokens each problem had in the whole prompt, before any cut.
        n_visual: competing visual tokens per problem, known on the host.
        n_text: text tokens after the last visual token per problem, known on the host.
        n_images: images per problem, known on the host.
    """

    sample: Tensor
    columns: Tensor
    valid: Tensor
    text_columns: Tensor
    text_valid: Tensor
    first: Tensor
    last: Tensor
    samples: tuple[int, ...]
    layer: int
    n_prompt: tuple[int, ...]
    n_visual: tuple[int, ...]
    n_text: tuple[int, ...]
    n_images: tuple[int, ...]

    @staticmethod
    def build(
        image: Tensor,
        real: Tensor,
        members: Sequence[tuple[int, int]],
        n_visual: Sequence[int],
        n_text: Sequence[int],
        n_images: Sequence[int],
        *,
        layer: int = 0,
        n_prompt: Sequence[int] | None = None,
    ) -> "Groups":
        """Collect the problems without waiting for the device.

        Args:
            image: (B, S) number of the image a column belongs to, within its sample; -1 for text and padding.
            real: (B, S) False at padding.
            members: (sample, image) per problem; image -1 means all images of the sample.
            n_visual, n_text, n_images: host counts per problem, see the class.
            layer: decoder layer whose input is cut.
            n_prompt: see the class; default: nothing was cut before.
        """
        sample, wanted = to_device(members, image.device).unbind(1)
        rows = image[sample]
        member = torch.where(wanted[:, None] < 0, rows >= 0, rows == wanted[:, None])
        after_last = (rows >= 0).flip(1).cumsum(1).flip(1) == 0
        columns, valid = _columns_of(member, max(n_visual, default=0))
        text_columns, text_valid = _columns_of(after_last & real[sample], max(n_text, default=0))
        first = real.to(torch.int8).argmax(1)[sample]
        last = real.shape[1] - 1 - real.flip(1).to(torch.int8).argmax(1)[sample]
        return Groups(
            sample,
            columns,
            valid,
            text_columns,
            text_valid,
            first,
            last,
            tuple(number for number, _ in members),
            layer,
            tuple(n_visual if n_prompt is None else n_prompt),
            tuple(n_visual),
            tuple(n_text),
            tuple(n_images),
        )

    def visual(self, values: Tensor) -> Tensor:
        """Gather (B, S, ...) -> (R, L, ...): the values of the competing visual tokens."""
        return values[self.sample[:, None], self.columns]

    def text(self, values: Tensor) -> Tensor:
        """Gather (B, S, ...) -> (R, T, ...): the values of the text tokens after the last visual token."""
        return values[self.sample[:, None], self.text_columns]

    def scatter(self, kept: Tensor, n_rows: int, n_columns: int) -> Tensor:
        """Spread (R, L) survivors over the batch -> (B, S) bool, True at surviving visual columns."""
        spread = torch.zeros(n_rows, n_columns, dtype=torch.int32, device=kept.device)
        flat = self.sample[:, None] * n_columns + self.columns
        return spread.flatten().scatter_add_(0, flat.flatten(), (kept & self.valid).int().flatten()).view_as(spread) > 0


def _columns_of(member: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Columns that are True in each row, ascending, padded to `longest`: ((R, longest), (R, longest) bool)."""
    columns = (~member).to(torch.int8).argsort(dim=1, stable=True)[:, :longest]
    return columns, member.gather(1, columns)
