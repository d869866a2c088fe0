"""A program for test_kill.py: kill a run at random points again and again, and compare it with one left alone.

python killed_runs.py CHECKPOINT POPE_FOLDER WORK_FOLDER KILLS SEED: prints how many kills hit a running run.

The model is loaded once and every run is a fork of this process; half of the kills come at a random time, the others
in the middle of a random line that is being written.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import llava
from llava.eval import lines, results
from llava.eval.asking import LoadedModel
from llava.eval.benchmarks import get
from llava.eval.data import DataSet
from llava.eval.runner import MethodRun, Settings, run_benchmark
from llava.methodoptions import MethodOptions

OF_A_START = ("timings", "reuse", "started", "finished", "answers_file", "results_file")


def content(folder):
    """The answers without their ids, and the results without times and paths."""
    (report,) = folder.glob("*.json")
    record = {key: value for key, value in json.loads(report.read_text()).items() if key not in OF_A_START}
    record["samples"].pop("reused")
    for spent in ("selection_seconds", "flops_computed", "reused"):  # a new process begins with nothing to share
        record["accounting"].pop(spent, None)
    names = sorted(path.name for path in folder.iterdir())
    answers = [json.loads(line) for line in report.with_suffix(".jsonl").read_text().splitlines()]
    for row in answers:
        row.pop("answer_id")
    return names, [json.dumps(row) for row in answers], json.dumps(record)


def killed_in_the_middle(at):
    """Write lines in two halves; at the given one, end the process between them, as kill -9 does."""
    written = 0

    def append(path, rows):
        nonlocal written
        with path.open("ab", buffering=0) as file:
            for row in rows:
                line = json.dumps(row).encode() + b"\n"
                file.write(line[: len(line) // 2])
                written += 1
                if written == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                file.write(line[len(line) // 2 :])

    return append


def forked(work, seconds=None):
    """Run in a fork, killed after some seconds; return whether it came to its end."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # waits for nobody yet: a child that is done is still there
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a run failed")
    return os.WIFEXITED(status)


def main(checkpoint, pope, folder, kills, seed):
    torch.set_num_threads(1)
    draw = random.Random(seed)
    model, processor = llava.load(checkpoint, device="cpu")
    loaded = LoadedModel(model, processor, checkpoint, "weights")
    data = DataSet(get("pope"), Path(pope), "mini")
    questions = data.benchmark.questions(data.root)
    (options,) = MethodOptions(method="random", keep="3", set=("count=int",)).variants()
    method = MethodRun(options.build(), options.label)
    settings = Settings(batch_size=4, max_new_tokens=2, progress=False)

    def work(place, at=None):
        if at:
            lines.append = killed_in_the_middle(at)
        run_benchmark(data, questions, loaded, method, replace(settings, folder=place))

    results.identity.git_commit = lambda: None  # starts a program
    started = time.perf_counter()
    alone = Path(folder) / "alone"
    forked(lambda: work(alone))
    duration = time.perf_counter() - started
    hits, runs = 0, 0
    while hits < kills:
        place = Path(folder) / f"run{runs}"
        for _ in range(5):  # the same run is killed up to five times
            at = draw.randint(1, len(questions)) if draw.random() < 0.5 else None
            ended = forked(lambda at=at, place=place: work(place, at), None if at else draw.random() * duration)
            hits += not ended
            if ended or hits == kills:
                break
        forked(lambda place=place: work(place))
        if content(place) != content(alone):
            sys.exit(f"{place} differs from {alone}")
        runs += 1
    sys.stdout.write(f"{hits} kills in {runs} runs\n")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
