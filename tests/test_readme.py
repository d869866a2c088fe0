"""The README tells the truth: its commands parse, its files exist, its Python runs as printed."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from llava.analysis import __main__ as analysis
from llava.bench import __main__ as bench
from llava.commandline import check_words, flags_of
from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry
from tests.model.llava_folder import write_checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
IMAGES = sorted(set(re.findall(r"playground/\S+?\.jpg", README)))
CONFIGS = {  # command -> where the dataclass of its options stands
    "llava.serve.cli": "llava.serve.cli:ChatConfig",
    "llava.serve.vllm": "llava.serve.vllm.__main__:ServeConfig",
    "llava.eval": "llava.eval.__main__:RunConfig",
    "llava.eval score": "llava.eval.scoring:ScoreConfig",
    "llava.data": "llava.data.__main__:StatusConfig",
    "llava.methods": "llava.methods:ListConfig",
    "llava.report summary": "llava.report.__main__:Summary",
    "llava.report support": "llava.report.__main__:Support",
    "llava.report overlay": "llava.report.__main__:Overlay",
    **{f"llava.analysis {name}": f"llava.analysis.{name}:{name.title()}" for name in analysis.COMMANDS},
    **{f"llava.bench {name}": ":".join(target.split(":")[::2]) for name, target in bench.COMMANDS.items()},
}
INLINE = re.findall(r"`(python -m [^`]+)`", README)


def test_the_two_commands_stand_at_the_top():
    assert COMMANDS[:2] == ["bash scripts/v1_5/eval/pope.sh 0.778 128", "bash scripts/test.sh"]
    assert README.index(COMMANDS[0]) < README.index("\n## ")


@pytest.mark.parametrize("command", [*COMMANDS, *INLINE])
def test_command_exists(command):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z]+=.*", word)]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
    elif words[:2] == ["python", "-m"]:
        name = max((name for name in CONFIGS if command.startswith(f"python -m {name}")), key=len)
        module, _, config = CONFIGS[name].partition(":")
        own = words[3 : words.index("--")] if "--" in words else words[3:]  # what follows is another program's
        _, problems = check_words(own, flags_of(getattr(importlib.import_module(module), config)))
        assert not problems
    else:
        assert words[:2] == ["pip", "install"]


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
    exec(compile(PROGRAMS[0], "README.md", "exec"), {})
    answer, accounting = capsys.readouterr().out.strip().splitlines()
    assert answer and accounting.startswith("dart: visual tokens 576 -> 132")


def test_a_method_of_your_own_runs(tmp_path, capsys, monkeypatch):
    from PIL import Image

    from llava.serve import cli

    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))  # forget it afterwards
    (tmp_path / "evenly.py").write_text(PROGRAMS[1])
    Image.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "image.png")
    folder = write_checkpoint(tmp_path / "llava")
    words = ["--model-path", folder, "--image-file", tmp_path / "image.png", "--method-file", tmp_path / "evenly.py"]
    assert cli.main([*map(str, words), "--keep", "3", "--max-new-tokens", "4", "--device", "cpu", "-p", "Hi"]) == 0
    assert "evenly: visual tokens 4 -> 3" in capsys.readouterr().err
