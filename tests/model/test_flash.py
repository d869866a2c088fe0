"""The flash_attention_2 path of transformers, run with CPU stand-ins for the kernels."""

import pytest
import torch

from llava.reduction import DART, Random
from tests import tiny
from tests.model.fake_flash import FakeFlash, use_flash
from tests.tiny import N_LAYERS, error

METHODS = [
    DART(keep=6, pivots_visual=2, pivots_text=2),
    DART(keep=6, pivots_visual=2, pivots_text=2, criterion="attention_max"),
    Random(keep=8),
]


@pytest.fixture
def flash(monkeypatch):
    kernels = FakeFlash()
    kernels.install(monkeypatch)
    return kernels


@pytest.fixture
def model(flash):
    return use_flash(tiny.build())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name}-{getattr(method, 'criterion', '')}")
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_flash_equals_sdpa(model, flash, method, static):
    batch, sdpa = tiny.inputs(), tiny.build()
    options = {"past_key_values": tiny.static_cache(model, batch["input_ids"].shape[1] + 5)} if static else {}
    with method(sdpa) as expected_pruning:
        expected = tiny.generate(sdpa, batch)
    with method(model) as pruning:
        got = tiny.generate(model, batch, **options)
    kept, expected_kept = (
        [offsets.tolist() for images in p.last.indices for offsets in images] for p in (pruning, expected_pruning)
    )
    assert kept == expected_kept
    assert max(error(a, b) for a, b in zip(got.logits, expected.logits, strict=True)) < 2e-5
    assert flash.calls["varlen"] > 0


def test_a_sample_alone_stays_on_the_dense_kernel(model, flash):
    """Gathered positions look like packed sequences; handing them on would send every pruned layer to the slow path."""
    single = tiny.alone(tiny.inputs())[0]
    with METHODS[0](model):
        model(**single)
    assert flash.calls == {"dense": N_LAYERS}


def test_the_model_is_given_back(model):
    before = {name: id(module.config) for name, module in model.named_modules() if hasattr(module, "config")}
    with METHODS[1](model):
        model(**tiny.inputs())
    after = {name: id(module.config) for name, module in model.named_modules() if hasattr(module, "config")}
    assert before == after
    assert torch.is_tensor(model(**tiny.inputs()).logits)
