"""Methods that score with attention never make a map: the largest tensor at 3000 tokens, and the eager choice."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llava.reduction import registry
from tests import tiny
from tests.model.test_every_method import create

N = 3000
SIZES = {"tower": {"image_size": 54 * 6, "num_hidden_layers": 2}, "num_hidden_layers": 5, "vocab_size": 200}
SCORED = [
    name
    for name in registry.names()
    if {"attention", "attention_ahead", "received"} & set(getattr(create(name), "needs", ()))
]


class Largest(TorchDispatchMode):
    """Notes the largest tensor any operation returns."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "scaled_dot_product" not in str(function):  # on the CPU the fused kernel reports work space of its own
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                self.entries = max(self.entries, tensor.numel() if torch.is_tensor(tensor) else 0)
        return result


@pytest.fixture(scope="module")
def prompt():
    """One image of nearly 3000 tokens with text around it."""
    n_patches = 54**2
    ids = torch.full((1, N), 11)
    ids[:, 30 : 30 + n_patches] = tiny.IMAGE
    ids[:, 30 + n_patches :] = torch.arange(20, 20 + N - 30 - n_patches)
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, 54 * 6, 54 * 6)}


@pytest.fixture(scope="module")
def model():
    return tiny.build("llava", "sdpa", **SIZES)


@pytest.mark.parametrize("name", SCORED)
def test_nothing_of_size_n_by_n(name, model, prompt):
    with create(name, keep=0.5)(model) as pruning, Largest() as largest:
        model(**prompt, logits_to_keep=1)
    assert pruning.last.final[0] < pruning.last.visual[0]
    assert largest.entries < N * N / 2


def test_the_eager_map_gives_the_same_choice(model, prompt):
    eager = tiny.build("llava", "eager", **SIZES)
    chosen = []
    for each in (model, eager):
        with create("fastv", keep=0.5)(each) as pruning:
            each(**prompt, logits_to_keep=1)
        chosen.append(pruning.last.indices[0][0])
    assert torch.equal(*chosen)
