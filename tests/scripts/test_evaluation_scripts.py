"""Evaluation scripts: released names and arguments, short files, mistakes told before a model is loaded."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.eval.small_data import write_mme, write_pope, write_textvqa
from tests.model.llava_folder import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "scripts" / "v1_5" / "eval").glob("*.sh"))
ALL = sorted(
    path
    for path in (REPOSITORY / "scripts").glob("*/**/*.sh")
    if path.parts[-2] in ("eval", "qwen2_vl", "minicpm_v", "video_llava")
)
RELEASED = {
    "gqa": "gqa",
    "mmbench": "mmbench",
    "mmbench_cn": "mmbench_cn",
    "sqa": "scienceqa",
    "vqav2": "vqav2",
    "vizwiz": "vizwiz",
    "ocrbench": "ocrbench",
    "mme": "mme",
    "pope": "pope",
    "textvqa": "textvqa",
    "seed": "seed_bench",
    "mmvet": "mm_vet",
}
"""Released script name -> benchmark."""
WRITERS = {"pope": ("pope", write_pope), "mme": ("MME", write_mme), "textvqa": ("textvqa", write_textvqa)}


def run(script, *words, folder=None, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        ["bash", str(script), *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=120
    )


def small_data(folder, name):
    inner, write = WRITERS[name]
    write(folder / "playground" / "data" / "eval" / inner / "mini")


@pytest.mark.parametrize("folder", ["v1_5/eval", "v1_6/eval"])
def test_every_released_name_is_there(folder):
    assert set(RELEASED) <= {script.stem for script in (REPOSITORY / "scripts" / folder).glob("*.sh")}


def test_every_family_has_the_same_names():
    new = set(RELEASED) - {"mme", "pope", "textvqa"}
    for folder in ("qwen2_vl", "minicpm_v"):
        assert new <= {script.stem for script in (REPOSITORY / "scripts" / folder).glob("*.sh")}
    videos = {script.stem for script in (REPOSITORY / "scripts" / "video_llava").glob("*.sh")}
    assert {"tgif", "msvd", "msrvtt"} <= videos


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.relative_to(REPOSITORY / "scripts").as_posix())
def test_scripts_are_short_and_name_a_benchmark(script):
    text = script.read_text()
    assert len(text.splitlines()) <= 10 and os.access(script, os.X_OK)
    called = re.search(r"evaluate\.sh\" (\w+) ", text)
    if called:
        assert called[1] == RELEASED.get(script.stem, f"{script.stem}_qa")
        assert (script.parent / re.search(r"/((?:\.\./)+evaluate\.sh)", text)[1]).is_file()


def test_scripts_are_bash():
    check = 'for script; do bash -n "$script" || exit 1; done'
    assert subprocess.run(["bash", "-c", check, "bash", *map(str, ALL)]).returncode == 0


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
