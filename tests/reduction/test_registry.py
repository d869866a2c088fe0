"""Names, options and user files: what is refused, and with which words."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from llava.errors import ConfigurationError
from llava.reduction import DART, InLLM, NoReduction, Random, Reduction, registry


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def problems(call, *args, **kwargs):
    with pytest.raises(ConfigurationError) as caught:
        call(*args, **kwargs)
    return caught.value.problems


class TestCreate:
    def test_by_name(self):
        assert {"dart", "none", "random"} <= set(registry.names())
        assert registry.create("dart", keep=64, layer=5) == DART(keep=64, layer=5)
        assert registry.create("none") == NoReduction()
        assert registry.create("random", keep=0.25, seed=3) == Random(keep=0.25, seed=3)
        assert registry.get("dart") is DART
        assert DART(keep=1).name == "dart"

    def test_methods_are_values(self):
        assert DART(keep=64) == DART(keep=64) and hash(DART(keep=64)) == hash(DART(keep=64))
        with pytest.raises(AttributeError):
            DART().keep = 3

    def test_unknown_method(self):
        (problem,) = problems(registry.create, "drat", keep=3)
        assert problem.startswith("Unknown method 'drat'. Did you mean 'dart'? Known: dart, ")

    def test_all_mistakes_are_told_at_once(self):
        found = problems(
            registry.create, "dart", keep=0, layer=0, pivot_visual=8, criterion="k_norm", order="sorted", scoring=3
        )
        assert len(found) == 6
        text = "\n".join(found)
        assert "Method 'dart' has no option 'pivot_visual'. Did you mean 'pivots_visual'" in text
        assert (
            "keep=0 is not a budget: give a count of at least 1 (keep=128) or a fraction in (0, 1] (keep=0.222)."
            in text
        )
        assert "layer=0 is too small: it must be at least 1; the default is layer=2." in text
        assert "criterion='k_norm' is not known. Did you mean 'k_norm_m" in text
        assert "order='sorted' is not known." in text and "Allowed: cpython_set, norm." in text
        assert "scoring=3 is not known. Allowed: native, float32." in text

    def test_an_option_of_a_method_without_options(self):
        (problem,) = problems(registry.create, "none", keep=3)
        assert problem == "Method 'none' has no option 'keep'. It has no options."

    def test_the_note_of_the_released_rule_is_no_option(self):
        assert "released_rule" in problems(registry.create, "dart", released_rule="x")[0]


class TestValues:
    @pytest.mark.parametrize("keep", [0, -3, 0.0, 1.5, -0.1, "128", None, True, float("nan"), float("inf"), [128]])
    def test_keep(self, keep):
        (problem,) = problems(DART, keep=keep)
        assert f"keep={keep!r} is not a budget" in problem

    @pytest.mark.parametrize("layer", [2.5, "2", True, None])
    def test_layer_of_the_wrong_kind(self, layer):
        assert problems(Random, layer=layer) == [f"layer={layer!r} is not a whole number; the default is layer=2."]

    def test_no_pivots(self):
        assert "leave no pivot" in problems(DART, pivots_visual=0, pivots_text=0)[0]

    def test_exact_budget_below_the_pivots(self):
        assert "keep=3 with budget='exact' cannot hold pivots_visual=4" in problems(DART, keep=3, budget="exact")[0]
        assert DART(keep=3).n_kept(100) == 4


USER_FILE = '''
"""Keep every second token."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from llava.reduction import InLLM, register


{decorator}
@dataclass(frozen=True)
class EverySecond(InLLM):
    keep: int | float = 0.5
    offset: int = 0

    def select(self, state):
        rank = state.groups.valid.cumsum(1) - 1
        return state.groups.valid & (rank % 2 == self.offset)
'''


@pytest.mark.usefixtures("clean_registry")
class TestUserFile:
    def write(self, tmp_path, text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    @pytest.mark.parametrize("decorator, name", [("", "everysecond"), ('@register("second")', "second")])
    def test_a_class_goes_through_our_checks_and_runs(self, tmp_path, decorator, name):
        path = self.write(tmp_path, USER_FILE.format(decorator=decorator))
        for spec in (path, path + ":EverySecond", path):
            assert registry.load_user_file(spec) == name
        assert name in registry.names()
        assert "offset='a' is not a whole number" in problems(registry.create, name, offset="a")[0]
        from tests import tiny

        model, batch = tiny.build(), tiny.inputs()
        with registry.create(name, offset=1)(model) as pruning:
            tiny.generate(model, batch)
        assert pruning.last.final == [8, 24, 0]
        assert pruning.last.indices[0][0].tolist() == list(range(1, 16, 2))

    def test_missing_file(self, tmp_path):
        for spec in ("nowhere.py", str(tmp_path), "nowhere.py:Class", "mine.txt"):
            assert "No method file" in problems(registry.load_user_file, spec)[0]

    def test_wrong_class(self, tmp_path):
        path = self.write(tmp_path, USER_FILE.format(decorator=""))
        assert (
            "no method class 'EverySecon'. Did you mean 'EverySecond'?"
            in problems(registry.load_user_file, path + ":EverySecon")[0]
        )

    def test_file_that_does_not_run(self, tmp_path):
        path = self.write(tmp_path, "import no_such_module_anywhere")
        assert "mine.py does not run: ModuleNotFoundError" in problems(registry.load_user_file, path)[0]
        assert "defines no method" in problems(registry.load_user_file, self.write(tmp_path, "x = 1", "empty.py"))[0]

    def test_several_classes_need_a_choice(self, tmp_path):
        text = USER_FILE.format(decorator="") + "\n\n@dataclass(frozen=True)\nclass Other(EverySecond):\n    pass\n"
        path = self.write(tmp_path, text)
        assert "defines 2 methods (EverySecond, Other)" in problems(registry.load_user_file, path)[0]
        assert registry.load_user_file(path + ":Other") == "other"

    def test_a_name_that_is_taken(self, tmp_path):
        path = self.write(tmp_path, USER_FILE.format(decorator='@register("dart")'))
        assert "Method name 'dart' is already taken by DART." in problems(registry.load_user_file, path)[0]
        assert registry.get("dart") is DART


@pytest.mark.usefixtures("clean_registry")
class TestRegister:
    def test_every_reason_is_listed(self):
        class Bare(InLLM):
            pass

        text = "\n".join(problems(registry.register("No Good"), Bare))
        assert "Method name 'No Good' is not usable" in text
        assert "@dataclass(frozen=True)" in text
        assert "must define select(self, state)" in text

    def test_needs_that_nobody_offers(self):
        @dataclass(frozen=True)
        class Curious(InLLM):
            needs = frozenset({"key", "values"})

            def select(self, state):
                return state.groups.valid

        (problem,) = problems(registry.register("curious"), Curious)
        assert "needs 'key', which is not offered. Did you mean 'keys'" in problem

    def test_not_a_method(self):
        assert "must derive from llava.reduction.InLLM" in problems(registry.register("x"), int)[0]

    def test_options_need_defaults(self):
        @dataclass(frozen=True, kw_only=True)
        class Demanding(Reduction):
            width: int

        assert "option 'width' needs a default" in problems(registry.register("demanding"), Demanding)[0]


def test_reduction_imports_torch_only():
    code = (
        "import sys, llava.reduction; "
        "bad = {'transformers', 'PIL', 'tyro', 'llava.model'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
