"""Attention rows of a few queries, computed piece by piece from queries and keys; a full map never exists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.reduction.groups import Groups

ENTRIES_AT_ONCE = 2**22  # probabilities held at a time: 16 MB in single precision


@dataclass(frozen=True)
class AttentionRows:
    """Softmax rows of one layer, for the queries a method asked for, at the competing visual tokens.

    The softmax runs over all keys a query sees, text included; nothing is renormalised over the visual tokens.

    Args:
        query: (R, H, Q, d) the asked queries after rotary embedding, one set per selection problem.
        key: (B, G, S, d) keys of the whole sequences, G key/value heads.
        visible: (R, Q, S) bool, the keys each query sees.
        groups: the problems.
        scaling: factor on the logits.
        valid: (R, Q) False where a query is padding.
        columns: (R, Q) columns of the queries.
    """

    query: Tensor
    key: Tensor
    visible: Tensor
    groups: Groups
    scaling: float
    valid: Tensor
    columns: Tensor

    def head_mean(self) -> Tensor:
        """(R, Q, L) probabilities, mean over heads in the model's dtype; zero at padding queries."""
        groups = self.groups
        n_problems, _, n_queries, _ = self.query.shape
        mean = self.query.new_zeros(n_problems, n_queries, groups.columns.shape[1])
        for problems, queries, rows in self._pieces():
            mean[problems, queries] = _at(rows.mean(1), groups.columns[problems])
        return mean * self.valid[..., None]

    def weighted(self, weights: Tensor) -> Tensor:
        """(R, H, L) per head, the sum over queries of (R, Q, L) weights times probabilities, in single precision."""
        n_problems, heads = self.query.shape[:2]
        total = torch.zeros(n_problems, heads, weights.shape[-1], device=weights.device)
        weights = weights * self.valid[..., None]
        for problems, queries, rows in self._pieces():
            columns = self.groups.columns[problems, None].expand(-1, heads, -1)
            total[problems] += (_at(rows.float(), columns) * weights[problems, None, queries]).sum(2)
        return total

    def _pieces(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """(problems, queries, (r, H, q, S) probabilities), together covering every row once."""
        n_problems, _, n_queries, _ = self.query.shape
        one_each = self.groups.samples == tuple(range(self.key.shape[0]))
        blocks = [(slice(None), slice(None))] if one_each else []
        for problem, sample in enumerate(self.groups.samples if not one_each else ()):
            blocks.append((slice(problem, problem + 1), slice(sample, sample + 1)))
        for problems, samples in blocks:
            key = self.key[samples]
            step = rows_at_once(key.shape[0], self.query.shape[1], key.shape[2])
            for start in range(0, n_queries, step):
                queries = slice(start, start + step)
                visible = self.visible[problems, queries]
                yield problems, queries, softmax_rows(self.query[problems, :, queries], key, visible, self.scaling)


@dataclass(frozen=True)
class RecordedRows:
    """The same reading of rows that are there already, for tests and for methods run outside a model.

    Args:
        rows: (R, H, Q, L) probabilities at the competing visual tokens.
        valid: (R, Q) False where a query is padding.
        columns: (R, Q) columns of the queries.
    """

    rows: Tensor
    valid: Tensor
    columns: Tensor

    def head_mean(self) -> Tensor:
        """See `AttentionRows.head_mean`."""
        return self.rows.mean(1) * self.valid[..., None]

    def weighted(self, weights: Tensor) -> Tensor:
        """See `AttentionRows.weighted`."""
        return (self.rows.float() * (weights * self.valid[..., None])[:, None]).sum(2)


def softmax_rows(query: Tensor, key: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """Attention probabilities, softmax in single precision, returned in the dtype of the query.

    Args:
        query: (B, H, Q, d); key: (B, G, S, d), every H / G query heads sharing a key head.
        visible: (B or 1, Q, S) bool.
        scaling: factor on the logits.

    Returns:
        (B, H, Q, S).
    """
    query = query.unflatten(1, (key.shape[1], -1))  # (B, G, H / G, Q, d)
    logits = (query @ key[:, :, None].transpose(-1, -2)).float() * scaling
    logits = logits.masked_fill(~visible[:, None, None], torch.finfo(logits.dtype).min)
    return logits.softmax(-1).flatten(1, 2).to(query.dtype)


def rows_at_once(batch: int, heads: int, length: int) -> int:
    """Query rows whose probabilities may exist together."""
    return max(1, ENTRIES_AT_ONCE // max(batch * heads * length, 1))


def _at(rows: Tensor, columns: Tensor) -> Tensor:
    """(r, [H,] q, S), (r, [H,] L) -> (r, [H,] q, L)."""
    return rows.gather(-1, columns.unsqueeze(-2).expand(*rows.shape[:-1], -1))
