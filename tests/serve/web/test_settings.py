"""What a visitor asked for: links that give it back, command lines that mean the same, mistakes all together."""

import dataclasses
import shlex
import subprocess

import pytest

from llava.commandline import parse
from llava.errors import ConfigurationError
from llava.reduction import DART, FastV, PyramidDrop, registry
from llava.serve.cli import ChatConfig
from llava.serve.web.settings import (
    NONE,
    Choice,
    Limits,
    Setting,
    choice_problems,
    command_line,
    question_problem,
)

LIMITS = Limits()
ODD = 'What\'s 50% & more? ü <b>#1</b> a=b;c\\d "e"'


def decoded(query):
    """What a web server makes of a query string; from the standard library."""
    from urllib.parse import parse_qsl

    return dict(parse_qsl(query.removeprefix("?")))


@pytest.mark.parametrize(
    "setting",
    [
        Setting(),
        Setting("What is this?", (Choice("dart", "64"),), "sign"),
        Setting(ODD, (Choice("visionzip+dart", "0.25", "first.keep=192 layer=3"), Choice("fastv", "preset 64")), ""),
        Setting("Is it?", (Choice("tome"), Choice("pyramiddrop", "", "layer_list=(2,4,6)"), Choice("random", "1")), ""),
    ],
)
def test_a_link_gives_the_setting_back(setting):
    assert Setting.from_query(decoded(setting.query()), {"sign"}, LIMITS) == setting


def test_what_a_link_has_too_much_of_is_left_out():
    given = {"q": "x" * 9999, "m1": "dart:64", "m2": "fastv:" + "9" * 9999, "m9": "tome", "image": "../../etc/passwd"}
    setting = Setting.from_query(given, {"sign"}, LIMITS)
    assert setting == Setting("x" * LIMITS.question, (Choice("dart", "64"),), "")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice("dart", "64"), DART(keep=64)),
        (Choice("dart", "0.25", "pivots_visual=8 layer=1"), DART(keep=0.25, pivots_visual=8, layer=1)),
        (Choice("fastv", "preset 128"), FastV(keep=128)),
        (Choice("pyramiddrop", "96", "layer_list=(1,2,3)"), PyramidDrop(keep=96, layer_list=(1, 2, 3))),
        (Choice("none"), registry.create("none")),
    ],
)
def test_the_command_line_means_the_same(choice, expected):
    line = command_line(choice, ["--image-file", "a b.png"], ["What's that?"], ["--max-new-tokens", "9"])
    assert line.startswith("python -m llava.serve.cli ")
    config = parse(ChatConfig, shlex.split(line)[3:])
    assert (config.prompt, config.image_file, config.max_new_tokens) == ("What's that?", ("a b.png",), 9)
    assert config.reduction.build(seed=config.seed) == choice.build("llava") == expected


@pytest.mark.parametrize("question", [ODD, "-p --help", "--prompt", "$(exit 1) `exit 2` !x"])
def test_odd_questions_reach_the_command_line_whole(question):
    assert (
        parse(ChatConfig, shlex.split(command_line(NONE, ["--video-file", "i.mp4"], [question]))[3:]).prompt == question
    )


def test_several_questions_go_through_standard_input():
    questions = ["Is it 50%?", "it's\\n two\nlines", "And -n?"]
    printing, _, chat = command_line(Choice("dart", "64"), ["--image-file", "i.png"], questions).partition(" | ")
    lines = subprocess.run(["bash", "-c", printing], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["Is it 50%?", "it's\\n two lines", "And -n?"]
    config = parse(ChatConfig, shlex.split(chat)[3:])
    assert config.prompt is None and config.reduction.build() == DART(keep=64)


def test_a_visitor_cannot_name_a_python_file():
    assert "method_file" not in {field.name for field in dataclasses.fields(Choice)}
    with pytest.raises(ConfigurationError):
        Choice("/tmp/evil.py", "64").build("llava")
    with pytest.raises(ConfigurationError):
        Choice("dart", "64", "method_file=/tmp/evil.py").build("llava")


def test_mistakes_are_told_together():
    choices = [
        Choice("dart", "many"),
        Choice("fastvlm", "64"),
        Choice("fastv", "2.5", "nonsense"),
    ]
    problems = " ".join(choice_problems(choices, "llava", LIMITS))
    for words in ("'many' is not a number", "Unknown method 'fastvlm'", "keep 2.5", "'nonsense' is not NAME=VALUE"):
        assert words in problems
    assert "given twice" in choice_problems([Choice("dart", "64")] * 2, "llava", LIMITS)[0]
    assert "3 can be compared" in choice_problems([Choice("dart", str(n)) for n in range(1, 5)], "llava", LIMITS)[0]
    assert "too long" in choice_problems([Choice("dart", "1", "x" * 300)], "llava", LIMITS)[0]
    assert "cannot be read" in choice_problems([Choice("dart", "1", "'")], "llava", LIMITS)[0]
    assert choice_problems([Choice("dart", "nan"), Choice("dart", "-1"), Choice("dart", "1e999")], "llava", LIMITS)


def test_questions():
    assert question_problem("What?", LIMITS) is None
    assert "empty" in question_problem(" \n", LIMITS)
    assert "501 characters: 500" in question_problem("x" * 501, LIMITS)
