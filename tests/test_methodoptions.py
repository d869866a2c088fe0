"""Presets, chains and lists of methods on the command line."""

import pytest

from llava.errors import ConfigurationError
from llava.methodoptions import MethodOptions
from llava.reduction import DART, Chain, DivPrune, FastV, PyramidDrop, SparseVLM, registry


class TestPresets:
    def test_published_settings(self):
        assert MethodOptions(method="fastv", preset="128").build() == FastV(keep=128)
        assert MethodOptions(method="pyramiddrop", preset="128").build().counts(576) == [184, 92, 46]
        assert MethodOptions(method="sparsevlm", preset="64+").build() == SparseVLM(keep=64, mode="v2.0")
        assert MethodOptions(method="none", preset="64").build().name == "none"
        assert MethodOptions(method="fastv", preset="128").label == "fastv-128"

    def test_set_overrules(self):
        options = MethodOptions(method="pyramiddrop", preset="128", set=("positions=original", "images=together"))
        assert options.build() == PyramidDrop.preset("128", positions="original", images="together")

    def test_mistakes(self):
        with pytest.raises(ConfigurationError, match="'fastv' has no preset '7'. It has: 192, 128, 64, 320"):
            MethodOptions(method="fastv", preset="7").build()
        with pytest.raises(ConfigurationError, match="either --preset or a budget"):
            MethodOptions(method="fastv", preset="64", keep=3).build()

    def test_lists_and_all(self):
        runs = MethodOptions(method="none,fastv,dart", preset="192,64").variants()
        assert [run.label for run in runs] == ["none", "fastv-192", "fastv-64", "dart-192", "dart-64"]
        every = MethodOptions(method="all", preset="128").variants()
        assert {run.method for run in every} == {
            name for name in registry.names() if name == "none" or "128" in registry.get(name).presets
        }
        assert len(MethodOptions(method="all", keep=64).variants()) == len(registry.names())


class TestChains:
    def test_by_name(self):
        options = MethodOptions(method="divprune+dart", keep=64, set=("first.keep=192", "pivots_text=2"))
        assert options.build() == Chain(DivPrune(keep=192), DART(keep=64, pivots_text=2))
        assert options.label == "divprune+dart-64"
        assert MethodOptions(method="divprune+fastv", preset="64").build() == Chain(DivPrune(), FastV(keep=64))

    def test_mistakes_of_both_together(self):
        with pytest.raises(ConfigurationError) as caught:
            MethodOptions(method="divprun+dart", keep=64, set=("pivot_text=2",)).build()
        assert len(caught.value.problems) == 2

    def test_order(self):
        with pytest.raises(ConfigurationError) as caught:
            Chain(DART(), DivPrune())
        assert len(caught.value.problems) == 2
