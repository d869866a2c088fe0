"""Every page tells the truth: its commands parse, its programs import what exists, its links lead somewhere.

Executed are all programs (README's in `tests/test_readme.py`, the tutorial with its commands in `test_tutorial.py`, the
others in `test_adding_models.py` and `test_blocks.py`) and commands that take seconds. The others are parsed (they
answer whole benchmarks, train, or need a download): their words go through their own options, methods are built.
"""

import ast
import importlib.util
import re
import subprocess

import pytest

from tests.blocks import PAGES, ROOT, blocks, command_problems, inline_commands

LANGUAGES = {"", "bash", "python", "bibtex", "text", "json"}
COMMANDS = {}  # command -> page it stands in first
for _name, _page in PAGES.items():  # README's are in tests/test_readme.py
    for _command in [*inline_commands(_page), *(line for block in blocks(_page) for line in block.commands)]:
        if _name != "README.md":
            COMMANDS.setdefault(_command, _name)
PROGRAMS = [
    pytest.param(block.text, id=f"{name}:{block.line}")
    for name, page in PAGES.items()
    for block in blocks(page)
    if block.language == "python"
]


def test_there_is_something_to_check():
    assert len(PAGES) > 20 and len(COMMANDS) > 50 and len(PROGRAMS) >= 4


@pytest.mark.parametrize("name", PAGES)
def test_blocks_are_closed_and_of_known_kinds(name):
    fences = re.findall(r"^ *```.*$", PAGES[name], re.MULTILINE)
    assert len(fences) == 2 * len(blocks(PAGES[name]))
    assert {block.language for block in blocks(PAGES[name])} <= LANGUAGES


def test_every_command_parses():
    wrong = {f"{page}: {command}": command_problems(command) for command, page in COMMANDS.items()}
    assert not {command: problems for command, problems in wrong.items() if problems}


@pytest.mark.parametrize(
    "command",
    [
        "python -m llava.eval pope --metod dart",
        "python -m llava.eval pope --method darts",
        "python -m llava.eval pope --method dart --set pivot=3",
        "python -m llava.eval pope --method dart --preset 100",
        "python -m llava.report tables 1",
        "python -m llava.bench prefill 3",
        "python -m llava.cli",
        "bash scripts/nothing.sh",
        'pip install "llava-dart[nothing]"',
        "python -m pytest tests/nothing.py",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_noticed(command):
    assert command_problems(command)


def test_shell_blocks_are_shell():
    text = "\n".join(block.text for page in PAGES.values() for block in blocks(page) if block.language == "bash")
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_import_what_exists(program):
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "llava":
            assert all(_is_there(node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.split(".")[0] == "llava"]
            assert all(importlib.util.find_spec(name) for name in ours)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "llava":
            assert _is_there("llava", node.attr)


def _is_there(module, name):
    return hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}")


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_links_lead_somewhere(name):
    prose = re.sub(r"^```.*?^```$", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
    assert not [target for target in targets if not (ROOT / name).parent.joinpath(target).exists()]


def test_committed_results_name_files_as_the_repository_does():
    named = re.compile(r'"(?:answers|results)_file": "(?:/|[A-Za-z]:)')
    results = sorted((ROOT / "docs" / "results").rglob("*.json"))
    assert len(results) > 50
    assert [file.name for file in results if named.search(file.read_text(encoding="utf-8"))] == []
