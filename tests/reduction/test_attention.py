"""Attention rows against softmax written out, in one piece and in many."""

import pytest
import torch

from llava.reduction import attention
from llava.reduction.attention import AttentionRows, RecordedRows
from tests.reduction.problems import problems


def written_out(query, key, columns, length):
    """(H, Q, S) causal probabilities of one sample, one head and one query at a time."""
    heads, shared = query.shape[0], key.shape[0]
    rows = torch.zeros(heads, len(columns), length, dtype=torch.float64)
    for head in range(heads):
        for number, column in enumerate(columns):
            own = key[head * shared // heads, : column + 1].double()
            weights = (own @ query[head, number].double() * 0.5).exp()
            rows[head, number, : column + 1] = weights / weights.sum()
    return rows


@pytest.mark.parametrize("entries", [attention.ENTRIES_AT_ONCE, 1], ids=["whole", "pieces"])
@pytest.mark.parametrize("samples", [(0, 1), (0, 0, 1)], ids=["one image each", "two images in a sample"])
def test_rows(entries, samples, monkeypatch):
    monkeypatch.setattr(attention, "ENTRIES_AT_ONCE", entries)
    torch.manual_seed(0)
    base, _ = problems([(2, 5, 3)] * len(samples))
    groups = type(base)(**{**vars(base), "sample": torch.tensor(samples), "samples": samples})
    query, key = torch.randn(len(samples), 4, 3, 8), torch.randn(2, 2, 10, 8)
    columns = groups.text_columns
    visible = torch.arange(10) <= columns[..., None]
    valid = torch.tensor([[True, True, False]]).repeat(len(samples), 1)
    rows = AttentionRows(query, key, visible, groups, 0.5, valid, columns)
    expected = torch.stack([written_out(query[r], key[s], columns[r], 10)[..., 2:7] for r, s in enumerate(samples)])
    expected = expected * valid[:, None, :, None]
    assert torch.allclose(rows.head_mean().double(), expected.mean(1), atol=1e-6)
    weights = torch.rand(len(samples), 3, 5)
    total = (expected * weights[:, None]).sum(2)
    assert torch.allclose(rows.weighted(weights).double(), total, atol=1e-6)
    recorded = RecordedRows(expected.float(), valid, columns)
    assert torch.allclose(recorded.head_mean().double(), expected.mean(1), atol=1e-6)
    assert torch.allclose(recorded.weighted(weights).double(), total, atol=1e-6)
