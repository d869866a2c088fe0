"""kill -9 at random points, and several processes: the same answers and the same score as one run left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eval.small_data import read_lines, write_pope
from tests.model.llava_folder import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


def python(*words, folder):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its runs with fork")
def test_runs_killed_at_random_points_end_with_the_same_files(checkpoint, tmp_path):
    """Twenty kills in all, the half of them in the middle of a line."""
    pope = write_pope(tmp_path / "pope")
    program = Path(__file__).with_name("killed_runs.py")
    done = python(program, checkpoint, pope, tmp_path / "work", 20, 7, folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("20 kills"), done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_of_accelerate_give_the_same_score(checkpoint, tmp_path):
    write_pope(tmp_path / "playground" / "data" / "eval" / "pope" / "mini")
    words = ["-m", "llava.eval", "pope", "--model-path", checkpoint, "--method", "random", "--keep", "3"]
    words += ["--max-new-tokens", "2", "--batch-size", "4", "--device", "cpu", "--output"]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    both = python(*launch, *words, "both", folder=tmp_path)
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("POPE (mini data, 18 questions)") == 1
    alone = python(*words, "alone", folder=tmp_path)
    assert alone.returncode == 0, alone.stderr
    records = [json.loads(next((tmp_path / name).glob("*.json")).read_text()) for name in ("both", "alone")]
    assert records[0]["metrics"] == records[1]["metrics"] and records[0]["run_id"] == records[1]["run_id"]
    texts = [[row["text"] for row in read_lines(tmp_path / record["answers_file"])] for record in records]
    assert texts[0] == texts[1] and len(texts[0]) == 18
    assert not list((tmp_path / "both").glob("*.part*"))
