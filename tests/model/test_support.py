"""The support table: what it says is what happens, and the README shows the newest one."""

import dataclasses
import functools
import importlib
import pkgutil
from pathlib import Path

import pytest

from llava.errors import UnsupportedModel
from llava.model import processing, support
from llava.model.families import FAMILIES
from llava.model.processing import Processor
from llava.reduction import registry
from tests import tiny
from tests.families import TINY

BY_NAME = {family.name: family for family in FAMILIES}
KEEP = 0.5


@functools.cache
def said(family: str) -> support.Support:
    return support.support(BY_NAME[family])


def create(name: str):
    """The method with few layers and tokens, for tiny models."""
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    small = {"keep": KEEP, "pivots_visual": 2, "pivots_text": 2, "window": 2}
    return registry.create(name, **{option: value for option, value in small.items() if option in known})


@pytest.mark.parametrize("family", TINY)
def test_what_the_table_says_happens(family):
    model, batch = TINY[family].build(), TINY[family].batch()[0]
    for name in registry.names():
        if name in said(family).refused:
            with pytest.raises(UnsupportedModel), create(name)(model):
                pass
            continue
        with create(name)(model) as pruning:
            tiny.generate(model, batch, 2)
        report = pruning.last
        assert report.final[2] == report.visual[2] == 0
        assert name == "none" or all(0 < a < b for a, b in zip(report.final[:2], report.visual[:2], strict=True))


def test_a_family_says_video_where_its_processor_opens_them():
    names = [module.name for module in pkgutil.iter_modules(processing.__path__)]
    modules = [importlib.import_module(f"{processing.__name__}.{name}") for name in names]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    opens = {
        kind.family: kind.open_video is not Processor.open_video
        for kind in kinds
        if issubclass(kind, Processor) and hasattr(kind, "family")
    }
    assert opens["llava"] and opens["video_llava"] and not opens["gemma3"]
    for family in FAMILIES:
        assert ("video" in family.inputs) == opens.get(family.name, False), family.name


def test_readme_shows_the_newest_table():
    readme = Path(__file__).parents[2] / "README.md"
    assert support.table() in readme.read_text(encoding="utf-8"), (
        "run: python -m llava.report support --update README.md"
    )


def test_every_family_and_method_is_in_the_table():
    text = support.table()
    assert all(family.title in text for family in FAMILIES)
    assert all(f"`{name}`" in text for name in registry.names() if name != "none")


def test_cells_are_short():
    names = ["a", "b", "c"]
    assert support._cell(names, {}) == "all"
    assert support._cell(names, {"b": "reason"}) == "all but `b`"
    assert support._cell(names, {"a": "reason", "b": "reason"}) == "`c`"
    assert support._cell(names, dict.fromkeys(names, "reason")) == "none"
