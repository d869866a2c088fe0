"""`python -m llava.methods` says what the classes say, for our methods and a user's own."""

import dataclasses

import pytest

import llava
from llava.methods import describe_method, main
from llava.reduction import registry

OWN = '''"""A file with a method."""

from dataclasses import dataclass

from llava.reduction import InLLM


@dataclass(frozen=True)
class Evenly(InLLM):
    """Keep every n-th token."""

    step: int = 2
    paper = "none yet"

    def select(self, state):
        return state.groups.valid
'''


@pytest.mark.parametrize("name", registry.names())
def test_every_method_is_described(name):
    cls = registry.get(name)
    text = "\n".join(describe_method(cls))
    assert text.startswith(f"{name}: ")
    for word in (cls.stage, cls.paper, "families  ", *cls.presets):
        assert word in text
    options = [field.name for field in dataclasses.fields(cls) if not field.metadata.get("private")]
    assert all(f"{option}=" in text for option in options)


def test_every_method_is_a_public_name():
    ours = {cls for cls in map(registry.get, registry.names()) if cls.__module__.startswith("llava.")}
    assert ours <= {getattr(llava, name) for name in llava.__all__}  # methods that other tests loaded do not count


def test_presets_can_be_built():
    for name in registry.names():
        for preset in registry.get(name).presets:
            assert registry.create(name, **registry.preset(name, preset)).name == name


def test_screen(capsys):
    assert main(["pyramiddrop"]) == 0
    out = capsys.readouterr().out
    assert "before layer 8, 16, 24" in out and "arXiv:2410.17247" in out and "attention rows of the layer after" in out
    assert "128: image_token_ratio_list=(0.32, 0.16, 0.08)" in out
    assert main(["--short"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(registry.names())


def test_families_follow_from_what_is_needed():
    lines = {name: describe_method(registry.get(name))[-1] for name in ("fastv", "mustdrop", "divprune")}
    assert "qwen2_vl" in lines["fastv"] and "qwen2_vl" in lines["divprune"]
    assert "qwen2_vl" not in lines["mustdrop"] and "llava" in lines["mustdrop"] and "[CLS]" in lines["mustdrop"]


def test_a_users_own_file_and_mistakes(tmp_path, capsys):
    file = tmp_path / "evenly.py"
    file.write_text(OWN)
    assert main(["--method-file", str(file)]) == 0
    out = capsys.readouterr().out
    assert "evenly: Keep every n-th token" in out and "step=2" in out and "none yet" in out
    assert main(["fastvv", "--method-file", "nowhere.py"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean 'fastv'" in err and "nowhere.py" in err
