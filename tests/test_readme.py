"""The README tells the truth: its commands parse, its files exist, its Python runs as printed."""

import re

import pytest

from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry
from tests.blocks import ROOT, blocks, command_problems, inline_commands
from tests.model.llava_folder import write_checkpoint

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(README)
COMMANDS = [command for block in BLOCKS for command in block.commands]
METHOD_FILES = [block.text for block in BLOCKS if block.language == "python" and "@register(" in block.text]
PROGRAMS = [block.text for block in BLOCKS if block.language == "python" and block.text not in METHOD_FILES]
IMAGES = sorted(set(re.findall(r"playground/\S+?\.jpg", README)))


def test_the_two_commands_stand_at_the_top():
    assert COMMANDS[:2] == ["bash scripts/v1_5/eval/pope.sh 0.778 128", "bash scripts/test.sh"]
    assert README.index(COMMANDS[0]) < README.index("\n## ")


@pytest.mark.parametrize("command", [*COMMANDS, *inline_commands(README)])
def test_command_exists(command):
    assert not command_problems(command)


def test_links_point_at_files():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_scripts_named_in_the_text_exist():
    for path in re.findall(r"`((?:scripts|llava|playground)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path


def test_methods_table_names_every_method():
    table = README[README.index("## Methods") : README.index("## Models")]
    ours = {name for name in registry.names() if registry.get(name).__module__.startswith("llava.")}
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(rows))) == ours


def test_usage_runs_as_printed(monkeypatch, capsys):
    missing = [path for path in IMAGES if not (ROOT / path).is_file()]
    if missing or not (EMBEDDED / "model.safetensors").is_file():
        pytest.skip(f"needs the embedded model and the mini benchmarks (absent: {', '.join(missing) or EMBEDDED})")
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(PROGRAMS[0], "README.md", "exec"), names)
    answer, accounting = capsys.readouterr().out.strip().splitlines()
    assert answer and accounting.startswith("dart: visual tokens 576 -> 132")
    for program in PROGRAMS[1:]:  # they go on with the names of the first
        exec(compile(program, "README.md", "exec"), names)


def test_a_method_of_your_own_runs(tmp_path, capsys, monkeypatch):
    from PIL import Image

    from llava.serve import cli

    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))  # forget it afterwards
    (tmp_path / "evenly.py").write_text(METHOD_FILES[0])
    Image.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "image.png")
    folder = write_checkpoint(tmp_path / "llava")
    words = ["--model-path", folder, "--image-file", tmp_path / "image.png", "--method-file", tmp_path / "evenly.py"]
    assert cli.main([*map(str, words), "--keep", "3", "--max-new-tokens", "4", "--device", "cpu", "-p", "Hi"]) == 0
    assert "evenly: visual tokens 4 -> 3" in capsys.readouterr().err
