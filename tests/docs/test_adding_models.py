"""The page about adding a model family: its adapter and its tiny model, pruned."""

import pytest
import torch

import tests.families
from llava import DART, Uniform
from llava.errors import UnsupportedModel
from llava.model import families
from tests.blocks import ROOT, blocks

PAGE = blocks((ROOT / "docs/adding_models.md").read_text(encoding="utf-8"))
FILES = {block.title: block.text for block in PAGE if block.title}


@pytest.fixture
def tiny(monkeypatch):
    """The model of the page, with an adapter that is forgotten afterwards."""
    names = {}
    exec(compile(FILES["vipllava.py"], "vipllava.py", "exec"), names)
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, names["VipLlava"]()))
    entry = {**vars(tests.families), "TINY": {}}
    exec(compile(FILES["entry.py"], "entry.py", "exec"), entry)
    return entry["TINY"]["vipllava"]


def test_the_family_is_new():
    class Loaded:
        config = type("Config", (), {"model_type": "vipllava"})

    with pytest.raises(UnsupportedModel):
        families.family_of(Loaded())


@pytest.mark.parametrize("method", [DART, Uniform])
def test_every_image_has_its_own_budget(tiny, method):
    model = tiny.build()
    batch, lengths = tiny.batch()
    assert lengths == [[16], [16, 16, 16], []]
    untouched = model(**batch).logits
    with method(keep=8, **({"budget": "exact"} if method is DART else {}))(model) as pruning:
        model(**batch)
    assert [[len(kept) for kept in images] for images in pruning.last.indices] == [[8], [8, 8, 8], []]
    with method(keep=1.0)(model):
        assert torch.equal(model(**batch).logits, untouched)
