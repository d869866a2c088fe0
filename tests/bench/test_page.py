"""The page about measuring: its commands parse, and it names every command and every key of the result file."""

import re
import shlex
from pathlib import Path

import pytest

from llava.bench.__main__ import COMMANDS, Commands
from llava.bench.flops import Flops
from llava.bench.results import content
from llava.commandline import parse

PAGE = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text(encoding="utf-8")
TYPED = [shlex.split(line) for line in PAGE.splitlines() if line.startswith("python -m llava.bench ")]


@pytest.mark.parametrize("words", TYPED, ids=lambda words: words[3])
def test_its_commands_parse(words):
    _, options = Commands()[words[3]]
    assert parse(options, words[4:]).problems() == []


def test_it_names_all_commands_and_keys():
    assert {words[3] for words in TYPED} == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) <= set(COMMANDS)
    for key in content("flops", Flops(), {}, {}, []):
        assert f'"{key}"' in PAGE


def test_an_unknown_command_is_not_imported():
    assert "prefil" not in Commands() and len(Commands()) == len(list(Commands())) == len(COMMANDS)
