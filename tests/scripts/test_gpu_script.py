"""scripts/gpu.sh with a stand-in for Python: its measurements parse, are made once, and unknown parts are refused."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from llava.bench.__main__ import Commands
from llava.commandline import parse

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu.sh"
STAND_IN = """#!/usr/bin/env bash
printf '%q ' "$@" >> {calls}; echo >> {calls}
case "$*" in *"--output "*.json) echo '{{"complete": true}}' > "${{@: -1}}";; *"import flash_attn"*) exit 1;; esac
"""


@pytest.fixture
def run(tmp_path):
    calls, program = tmp_path / "calls", tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(calls=calls))
    program.chmod(0o755)
    paths = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def script(*parts):
        calls.write_text("")
        words = ["bash", str(SCRIPT), str(tmp_path / "out"), *parts]
        done = subprocess.run(words, env=paths, capture_output=True, text=True, timeout=60)
        return done, [shlex.split(line) for line in calls.read_text().splitlines()]

    return script


def test_its_measurements_parse_and_are_made_once(run):
    done, calls = run("measure", "pipeline")
    assert done.returncode == 0
    measured = [words[2:] for words in calls if words[:2] == ["-m", "llava.bench"]]
    assert {words[0] for words in measured} == {"prefill", "memory", "decode", "parts", "sweep", "pipeline"}
    for name, *words in measured:
        _, options = Commands()[name]
        assert words[words.index("--device") + 1] == "cuda"
        words[words.index("--device") + 1] = "cpu"  # there need not be a GPU here
        parse(options, words)
    done, calls = run("measure", "pipeline")
    assert [words[2] for words in calls if words[:2] == ["-m", "llava.bench"]] == [
        "sweep"
    ]  # which continues its own file
    assert done.stdout.count("Measured already") == len(measured) - 1


def test_unknown_parts_are_refused_before_anything_runs(run):
    done, calls = run("check", "trian")
    assert done.returncode == 2 and "Unknown part 'trian'" in done.stderr and not calls
