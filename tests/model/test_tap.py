"""Attention rows read by the tap equal those of the full map, and its keys are those the cache holds."""

import pytest
import torch
from transformers import DynamicCache

from llava.model.tap import tapped
from tests import tiny
from tests.model.fake_flash import FakeFlash, use_flash
from tests.tiny import error

LAYER = 1


def run_tapped(model, batch, read, **options):
    layer = model.model.language_model.layers[LAYER]
    with tapped(layer.self_attn, read):
        return model(**batch, **options)


@pytest.mark.parametrize("kernel", ["sdpa", "eager", "flash"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rows_and_received_equal_the_eager_map(family, kernel, monkeypatch):
    batch = tiny.inputs()
    full = tiny.build(family, "eager")(**batch, output_attentions=True).attentions[LAYER]  # (B, H, N, N)
    FakeFlash().install(monkeypatch)
    model = use_flash(tiny.build(family)) if kernel == "flash" else tiny.build(family, kernel)
    real = batch["attention_mask"].bool()
    index = torch.tensor([real.shape[1] - 3, real.shape[1] - 1])
    seen = {}

    def read(attention):
        seen["rows"], seen["received"] = attention.rows(index), attention.received(real)

    run_tapped(model, batch, read)
    assert error(seen["rows"], full[:, :, index]) < 1e-5
    expected = torch.stack([rows.mean(0)[valid].mean(0) for rows, valid in zip(full, real, strict=True)])
    assert error(seen["received"][real], expected[real]) < 1e-5


def test_rows_are_computed_in_pieces(monkeypatch):
    """More queries than are computed at once."""
    monkeypatch.setattr("llava.reduction.attention.ENTRIES_AT_ONCE", 7 * 3 * 4 * 61)
    test_rows_and_received_equal_the_eager_map("llava", "sdpa", monkeypatch)


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_keys_are_those_in_the_cache(static):
    model, batch = tiny.build(), tiny.inputs()
    n_columns = batch["input_ids"].shape[1]
    cache = tiny.static_cache(model, n_columns + 9) if static else DynamicCache(config=model.config.get_text_config())
    seen = []
    run_tapped(model, batch, seen.append, past_key_values=cache)
    assert len(seen) == 1
    assert torch.equal(seen[0].key, cache.layers[LAYER].keys[:, :, :n_columns])
    assert torch.equal(seen[0].value, cache.layers[LAYER].values[:, :, :n_columns])


def test_configuration_comes_back_after_an_error():
    model = tiny.build()
    attention = model.model.language_model.layers[LAYER].self_attn
    config = attention.config

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tapped(model, tiny.inputs(), fail)
    assert attention.config is config
    assert "llava_tap" not in vars(config)
