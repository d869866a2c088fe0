"""FiCoCo-V's steps and a whole tower against the official code's, the card's example and a slow version."""

import pytest
import torch
from torch.nn import functional

from llava.reduction.ficoco_v import (
    Filtered,
    ScoreBuffer,
    compress,
    compress_clean,
    correlate,
    filter_clean,
    filter_tokens,
    mean_logits,
    penalised,
    redundancy,
)
from tests.reduction import recorded
from tests.reduction.slow_vision import ficoco_clean, ficoco_official

INFINITE = 3e38  # how the records write infinity


@pytest.mark.parametrize("name", recorded.names("ficoco_v", kind="function-level"))
def test_recorded_steps(name, golden):
    hyper, arrays = recorded.load("ficoco_v", name)
    buffer = ScoreBuffer((24, 24))
    for step in range(hyper["steps"]):
        logits = mean_logits(arrays[f"q.{step}"], arrays[f"k.{step}"], hyper["heads"])
        filtered = filter_tokens(logits, hyper["r"], buffer, hyper["beta"])
        assert torch.equal(filtered.removed, arrays[f"src.{step}"])
        assert torch.equal(filtered.left, arrays[f"rem.{step}"])
        targets, weights = correlate(logits, filtered.removed, hyper["quantile"])
        assert torch.equal(targets, arrays[f"targets.{step}"])
        out = compress(arrays[f"x.{step}"], filtered, targets, weights)
        assert torch.allclose(out, arrays[f"y.{step}"], rtol=0, atol=1e-5)
        cells = buffer.cells.masked_fill(buffer.cells.isinf(), INFINITE)
        assert torch.allclose(cells, arrays[f"buf.{step}"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", recorded.names("ficoco_v", kind="encoder pass"))
def test_recorded_tower(name, golden):
    """A CLIP tower written out here, with the method between attention and MLP of its upper half."""
    hyper, arrays = recorded.load("ficoco_v", name)
    n_heads, width, eps = hyper["heads"], hyper["width"], hyper["layer_norm_eps"]
    x, buffer, lengths = arrays["h0"], ScoreBuffer((24, 24)), [len(arrays["h0"])]

    def linear(part, layer, values):
        return values @ arrays[f"w.{part}.weight"][layer].T + arrays[f"w.{part}.bias"][layer]

    def norm(part, layer, values):
        return functional.layer_norm(
            values, (width,), arrays[f"w.{part}.weight"][layer], arrays[f"w.{part}.bias"][layer], eps
        )

    def heads(values):
        return values.view(len(values), n_heads, -1).transpose(0, 1)

    for layer in range(hyper["layers"]):
        normed = norm("layer_norm1", layer, x)
        q, k, v = (linear(f"self_attn.{part}_proj", layer, normed) for part in "qkv")
        q = q * (width // n_heads) ** -0.5
        attended = (heads(q) @ heads(k).transpose(1, 2)).softmax(-1) @ heads(v)
        x = x + linear("self_attn.out_proj", layer, attended.transpose(0, 1).flatten(1))
        if layer > hyper["control_encoding_layer"]:
            logits = mean_logits(q, k, n_heads)
            filtered = filter_tokens(logits, hyper["r"], buffer, hyper["beta"])
            x = compress(x, filtered, *correlate(logits, filtered.removed, hyper["quantile"]))
        inner = linear("mlp.fc1", layer, norm("layer_norm2", layer, x))
        x = x + linear("mlp.fc2", layer, inner * torch.sigmoid(1.702 * inner))
        lengths.append(len(x))
        if layer == hyper["layers"] - 2:
            features = x[1:]
    assert lengths == arrays["lengths"].tolist()
    assert float((features - arrays["features"]).abs().max()) <= 2e-4 * float(arrays["features"].abs().max())


def example():
    i, j = torch.arange(10)[:, None], torch.arange(10)[None]
    return ((i + 1) * (3 * j + 1) % 13) / 10 - 0.5, torch.tensor([[i + 1.0, 10 * i] for i in range(10)])


def test_example_of_two_layers():
    logits, tokens = example()
    scores = [-0.260579, -0.195466, -0.130354, -0.458302, -0.393189, 0.004642, 0.069754, 0.134867, -0.193081]
    assert torch.allclose(redundancy(logits), torch.tensor(scores), atol=1e-6)
    buffer = ScoreBuffer((24, 24))
    filtered = filter_tokens(logits, 2, buffer)
    assert filtered.removed.tolist() == [4, 5] and filtered.left.tolist() == [1, 9, 2, 3, 6, 7, 8, 0]
    inf = float("inf")
    cells = torch.tensor([inf, -0.195466, -0.130354, inf, inf, 0.004642, inf, 0.134867, inf, 1e9])
    assert torch.allclose(buffer.cells[:10], cells, atol=1e-6)
    targets, weights = correlate(logits, filtered.removed)
    assert targets.tolist() == [[3], [9]] and weights.tolist() == [[1], [1]]
    out = compress(tokens, filtered, targets, weights)
    expected = [(2, 10), (10, 90), (3, 20), (4.5, 35), (7, 60), (8, 70), (9, 80), (3.5, 25)]
    assert torch.allclose(out, torch.tensor(expected))

    logits = logits[:8, :8]
    filtered = filter_tokens(logits, 2, buffer)
    assert filtered.removed.tolist() == [4, 6] and filtered.left.tolist() == [2, 5, 1, 3, 7, 0]
    targets, weights = correlate(logits, filtered.removed)
    assert targets.tolist() == [[3], [7]]
    assert torch.allclose(compress(out, filtered, targets, weights)[:, 0], torch.tensor([3, 8, 10, 5.75, 3.5, 5.5]))


def test_penalty_makes_any_score_smaller():
    assert penalised(torch.tensor([0.4, 0.0, -0.4]), 2.0).tolist() == pytest.approx([0.2, 0.0, -0.8])


def test_buffer_stays_and_resets():
    buffer = ScoreBuffer((4, 4))
    logits = torch.randn(17, 17, generator=torch.Generator().manual_seed(0))
    first = filter_tokens(logits, 3, buffer)
    assert buffer.cells.isinf().sum() == 4
    filter_tokens(logits, 3, buffer)
    assert buffer.cells.isinf().sum() == 8  # the four of the first image, and four more
    buffer.reset()
    assert torch.equal(filter_tokens(logits, 3, buffer).left, first.left)


def test_constant_rows_merge_nowhere():
    logits = torch.zeros(10, 10)
    filtered = Filtered(torch.tensor([1, 2]), torch.tensor([3, 4, 5, 6, 7, 8, 9, 0]))
    targets, weights = correlate(logits, filtered.removed)
    assert targets.shape == (2, 0)
    tokens = torch.randn(10, 3)
    assert torch.equal(compress(tokens, filtered, targets, weights), tokens[filtered.left])


@pytest.mark.parametrize("quantile", [0.998, 0.8])
def test_clean_variant_equals_slow_version(quantile):
    generator = torch.Generator().manual_seed(5)
    logits, tokens = torch.randn(25, 25, generator=generator), torch.randn(25, 3, generator=generator)
    cells = torch.randperm(36, generator=generator)[:24].sort().values
    filtered = filter_clean(logits, 7, cells, (6, 6))
    out = compress_clean(tokens, logits, filtered, quantile)
    left, slow = ficoco_clean(logits, tokens, cells.tolist(), (6, 6), 7, 0.35, quantile)
    assert filtered.left.tolist() == left
    assert torch.allclose(out, slow, atol=1e-5)


@pytest.mark.parametrize("quantile", [0.998, 0.8])
def test_official_variant_equals_slow_version_over_layers(quantile):
    generator = torch.Generator().manual_seed(6)
    tokens = slow = torch.randn(37, 3, generator=generator)
    buffer, cells = ScoreBuffer((6, 6)), [1e9] * 36
    for r in (5, 8, 3):
        logits = torch.randn(len(tokens), len(tokens), generator=generator)
        filtered = filter_tokens(logits, r, buffer)
        tokens = compress(tokens, filtered, *correlate(logits, filtered.removed, quantile))
        slow = ficoco_official(logits, slow, cells, (6, 6), r, 0.35, quantile)
        assert torch.allclose(tokens, slow, atol=1e-5)
    assert torch.allclose(buffer.cells, torch.tensor(cells))
