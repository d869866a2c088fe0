"""scripts/v1_5/eval: the released interface, short files, mistakes told before a model is loaded."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.eval.small_data import write_mme, write_pope, write_textvqa
from tests.model.llava_folder import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "scripts" / "v1_5" / "eval").glob("*.sh"))
WRITERS = {"pope": ("pope", write_pope), "mme": ("MME", write_mme), "textvqa": ("textvqa", write_textvqa)}


def run(script, *words, folder=None, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        ["bash", str(script), *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=120
    )


def small_data(folder, name):
    inner, write = WRITERS[name]
    write(folder / "playground" / "data" / "eval" / inner / "mini")


def test_every_released_name_is_there():
    assert {"pope", "mme", "textvqa"} <= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_are_short_and_start(script):
    assert len(script.read_text().splitlines()) <= 10
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.parametrize(
    ("words", "mistakes"),
    [
        (["1.5", "abc"], ["1.5 is outside [0, 1)", "'abc' is not a whole number"]),
        (["-0.5", "0"], ["-0.5 is outside [0, 1)", "budget 0"]),
        (["high", "-3", "--limt", "4"], ["'high' is not a number", "budget -3", "Did you mean '--limit'"]),
    ],
)
def test_bad_arguments(words, mistakes, tmp_path):
    done = run(SCRIPTS[0], *words, folder=tmp_path)
    assert done.returncode == 2
    assert all(mistake in done.stderr for mistake in mistakes) and "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "method"), [("pope", "dart"), ("mme", "none"), ("textvqa", "random")])
def test_released_arguments_checkpoint_method_and_further_options(name, method, tmp_path):
    small_data(tmp_path, name)
    # A folder name with a space: variables and options must be passed on as they are.
    checkpoint = write_checkpoint(tmp_path / "tiny model")
    script = next(script for script in SCRIPTS if script.stem == name)
    options = ["--set", "pivots_visual=1", "--set", "pivots_text=1"] if method == "dart" else []
    done = run(
        script,
        "0.5",
        "2",
        "--limit",
        "4",
        "--max-new-tokens",
        "2",
        *options,
        folder=tmp_path,
        CKPT=checkpoint.name,
        METHOD=method,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    assert {record["method"]["name"] for record in records} == {"none", method}
    assert "ignored" in done.stdout
    if method == "dart":
        assert "budget 2 counts; reduction ratio 0.5 ignored" in done.stdout and "dart-2" in done.stdout
