"""`python -m llava.eval` from end to end: a tiny random checkpoint, real pruning, real files, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava.eval import benchmarks
from llava.eval.__main__ import main
from tests.eval.small_data import answers_to, read_lines, write_pope
from tests.eval.small_sets import write
from tests.model.llava_folder import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL_DART = ["--keep", "3", "--set", "pivots_visual=1", "--set", "pivots_text=1", "--max-new-tokens", "3"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


def results(folder):
    return {record["run_name"]: record for record in (json.loads(p.read_text()) for p in folder.glob("*.json"))}


def test_several_methods_and_budgets_in_one_table(workplace, checkpoint, capsys):
    few = ["--limit", "4", "--max-new-tokens", "2", "--set", "count=int"]
    assert (
        main(["pope", "--model-path", str(checkpoint), "--compare", "--method", "random", "--keep", "3,1", *few]) == 0
    )
    screen = capsys.readouterr().out
    assert screen.index("none ") < screen.index("random-3 ") < screen.index("random-1 ")
    counts = {name: record["accounting"]["final"] for name, record in results(workplace / "results").items()}
    assert sorted(counts.values()) == [1, 3, 4]


def test_a_method_that_cannot_work_does_not_stop_the_others(workplace, checkpoint, capsys):
    """GlobalCom2 shares a budget among the tiles of an image, and LLaVA-1.5 has none."""
    words = ["pope", "--model-path", str(checkpoint), "--keep", "3", "--limit", "2", "--max-new-tokens", "1"]
    assert main([*words, "--method", "globalcom2,random"]) == 2
    shown = capsys.readouterr()
    assert "globalcom2-3 was left out: " in shown.err and "random-3 " in shown.out
    assert main([*words, "--method", "globalcom2"]) == 2
    assert capsys.readouterr().err.startswith("Error: Method 'globalcom2'")


def test_mistakes_in_lists_are_reported_before_anything_runs(workplace, capsys):
    assert main(["pope", "--method", "random,drat", "--keep", "64,many"]) == 2
    assert main(["pope", "--method", "random,drat", "--keep", "64,32"]) == 2
    error = capsys.readouterr().err
    assert "--keep '64,many' is not a number" in error and error.count("Unknown method 'drat'. Did you mean") == 2


def test_all_benchmarks_next_to_the_unpruned_run(workplace, checkpoint, capsys):
    words = ["pope", "mme", "textvqa", "--model-path", str(checkpoint), "--compare", "--reuse", "64", *SMALL_DART]
    assert main(words) == 0
    screen = capsys.readouterr().out
    for words_shown in ("POPE (mini data, 18 questions)", "MME (mini", "TextVQA (mini", "3 of 4", "4 of 4", "FLOPs"):
        assert words_shown in screen
    found = results(workplace / "results")
    assert len(found) == 6
    for record in found.values():
        assert (
            record["samples"]["scored"]
            == record["samples"]["in_data_set"]
            == len(read_lines(Path(record["answers_file"])))
        )
        pruned = record["method"]["name"] == "dart"
        counts = record["accounting"]
        assert counts["final"] == (3 if pruned else 4) and counts["mean_over_layers"] == (3.5 if pruned else 4)
        assert (counts["cache_bytes"] < counts["cache_bytes_unpruned"]) == pruned
        assert (counts["flops_exact"] < counts["flops_exact_unpruned"]) == pruned
        if record["benchmark"] == "pope":  # which asks several questions about every image
            assert record["reuse"]["prefix"]["hits"] > record["reuse"]["prefix"]["misses"] > 0
            assert counts["flops_computed"] < counts["flops_exact"]
    mme = next(
        record for record in found.values() if record["benchmark"] == "mme" and record["method"]["name"] == "dart"
    )
    folder = workplace / "playground/data/eval/MME/mini/eval_tool/answers" / mme["run_name"]
    assert {path.name for path in folder.iterdir()} == {"count.txt", "artwork.txt", "code_reasoning.txt"}

    # Another method reuses the finished unpruned run.
    assert (
        main(
            [
                "pope",
                "--model-path",
                str(checkpoint),
                "--compare",
                "--method",
                "random",
                *SMALL_DART[:2],
                *SMALL_DART[-2:],
            ]
        )
        == 0
    )
    again = capsys.readouterr()
    assert "All 18 answers of this run are there already" in again.err and "random-3" in again.out


def test_benchmarks_of_every_kind_run(workplace, checkpoint, capsys):
    names = ["gqa", "mmbench", "scienceqa", "vqav2", "ocrbench"]
    for name in names:
        write(name, workplace / "playground" / "data" / "eval" / benchmarks.get(name).folder / "mini")
    assert main([*names, "--model-path", str(checkpoint), "--method", "none", "--max-new-tokens", "2"]) == 0
    found = {record["benchmark"]: record for record in results(workplace / "results").values()}
    assert set(found) == set(names)
    assert not any(record["errors"] for record in found.values())
    assert found["scienceqa"]["samples"] == {**found["scienceqa"]["samples"], "scored": 5, "in_data_set": 5}
    assert found["vqav2"]["headline"]["value"] is None and "EvalAI" in capsys.readouterr().out
    assert found["mmbench"]["exported_files"][0].endswith(".xlsx")
    row = read_lines(Path(found["mmbench"]["answers_file"]))[0]
    assert row["round_id"] == 0 and row["option_char"] == ["A", "B", "C"]
    # A part of the questions gives no upload, and says so.
    assert main(["vqav2", "--model-path", str(checkpoint), "--method", "none", "--limit", "2"]) == 0
    assert "not written: The upload needs an answer to every question" in capsys.readouterr().err


def test_missing_images_may_be_allowed(workplace, checkpoint, capsys):
    (workplace / "playground/data/eval/pope/mini/val2014/COCO_val2014_000000000001.jpg").unlink()
    words = ["pope", "--model-path", str(checkpoint), "--method", "none", "--max-new-tokens", "1"]
    assert main(words) == 2
    assert main([*words, "--allow-missing"]) == 0
    assert len(next(iter(results(workplace / "results").values()))["errors"]) == 6
    assert "6 questions could not be asked" in capsys.readouterr().out


def test_predictions_do_not_depend_on_the_batch(workplace, checkpoint):
    texts = []
    for size in ("1", "5", "18"):
        words = ["pope", "--model-path", str(checkpoint), "--batch-size", size, "--output", size, *SMALL_DART]
        assert main(words) == 0
        texts.append([row["text"] for row in read_lines(next((workplace / size).glob("*dart-3-????????.jsonl")))])
    assert texts[0] == texts[1] == texts[2]


def test_named_files(workplace, checkpoint):
    words = ["pope", "--model-path", str(checkpoint), "--output", "out/mine.json", "--limit", "6", *SMALL_DART]
    assert main([*words, "--answers-file", "a/b.jsonl"]) == 0
    assert json.loads(Path("out/mine.json").read_text())["answers_file"] == "a/b.jsonl"
    assert len(read_lines(Path("a/b.jsonl"))) == 6


def test_released_arguments_say_which_one_counted(workplace, checkpoint, capsys):
    words = [
        "pope",
        "--model-path",
        str(checkpoint),
        "--reduction-ratio",
        "0.5",
        "--max-num-tokens",
        "2",
        *SMALL_DART[2:],
    ]
    assert main([*words, "--limit", "3"]) == 0
    assert "budget 2 counts; reduction ratio 0.5 ignored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layer", "99"], "99"),
        (["--keep", "3", "--set", "pivots_visual=5"], "pivots_visual=5 is more than the 4 visual tokens"),
    ],
)
def test_options_that_do_not_fit_the_model_leave_no_files(workplace, checkpoint, capsys, words, message):
    assert main(["pope", "--model-path", str(checkpoint), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(workplace.glob("results/*"))


def test_a_checkpoint_that_is_not_there(workplace, capsys):
    assert main(["pope", "--model-path", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err


class TestBadInput:
    @pytest.fixture(autouse=True)
    def no_model(self, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("a model was loaded")

        monkeypatch.setattr("llava.model.builder.load", refuse)

    def test_every_missing_path_is_listed(self, workplace, capsys):
        home = workplace / "playground" / "data" / "eval"
        (home / "pope/mini/coco/coco_pope_popular.json").unlink()
        (home / "pope/mini/val2014/COCO_val2014_000000000001.jpg").unlink()
        (home / "textvqa/mini/TextVQA_0.5.1_val.json").unlink()
        (home / "MME/mini/llava_mme.jsonl").unlink()
        assert main(["pope", "textvqa", "mme"]) == 2
        message = capsys.readouterr().err
        for name in ("coco_pope_popular.json", "000000000001.jpg", "TextVQA_0.5.1_val.json", "llava_mme.jsonl"):
            assert message.count(name) == 1

    def test_a_started_full_download_is_not_passed_over(self, workplace, capsys):
        write_pope(workplace / "playground/data/eval/pope")
        (workplace / "playground/data/eval/pope/llava_pope_test.jsonl").unlink()
        assert main(["pope"]) == 2
        message = capsys.readouterr().err
        assert "pope/llava_pope_test.jsonl" in message and "--data mini" in message

    def test_malformed_rows(self, workplace, capsys):
        path = workplace / "playground/data/eval/pope/mini/llava_pope_test.jsonl"
        path.write_text(path.read_text() + "{\n")
        assert main(["pope"]) == 2
        assert "line 19" in capsys.readouterr().err

    def test_all_mistakes_together(self, capsys):
        words = ["pope", "mmee", "--batch-size=0", "--limit=-1", "--keep=0", "--data=nowhere", "--methd=x"]
        assert main([*words, "--answers-file=a.jsonl", "--dtype=float61", "--attn-implementation=sdpo"]) == 2
        message = capsys.readouterr().err
        for word in (
            "Did you mean 'mme'",
            "--batch-size 0",
            "--limit -1",
            "--keep 0",
            "nowhere",
            "'--methd'",
            "'float16'",
            "'sdpa'",
        ):
            assert word in message
        assert "--answers-file can hold one run only" in message and message.startswith("9 mistakes")

    def test_no_benchmark(self, capsys):
        assert main([]) == 2 and "mme, msrvtt_qa, msvd_qa, ocrbench, pope" in capsys.readouterr().err


class TestScore:
    def test_an_existing_file_without_a_model(self, workplace, capsys, monkeypatch):
        monkeypatch.setattr("llava.model.builder.load", None)
        root = workplace / "playground/data/eval/pope/mini"
        for image in (root / "val2014").iterdir():
            image.unlink()
        questions = read_lines(root / "llava_pope_test.jsonl")
        rows = answers_to(questions, ["Yes" if "dog" in q["text"] else "No" for q in questions])
        Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
        words = ["score", "pope", "--answers-file", "answers.jsonl"]
        assert main([*words, "--output", "score.json"]) == 0
        screen = capsys.readouterr().out
        assert "f1 100.00 %" in screen and "TP 3  FP 0  TN 3  FN 0" in screen
        assert json.loads(Path("score.json").read_text())["headline"]["value"] == 100

        Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows[:-1])))
        assert main(words) == 2 and "17 of the 18" in capsys.readouterr().err
        assert main([*words, "--partial"]) == 0

    def test_files_for_the_official_tool(self, workplace):
        questions = read_lines(workplace / "playground/data/eval/MME/mini/llava_mme.jsonl")
        Path("mine.jsonl").write_text("\n".join(map(json.dumps, answers_to(questions, ["Yes"] * 12))))
        assert main(["score", "mme", "--answers-file", "mine.jsonl", "--export"]) == 0
        assert (workplace / "playground/data/eval/MME/mini/eval_tool/answers/mine/count.txt").is_file()

    def test_answers_of_another_benchmark(self, workplace, capsys):
        questions = read_lines(workplace / "playground/data/eval/MME/mini/llava_mme.jsonl")
        Path("answers.jsonl").write_text("\n".join(map(json.dumps, answers_to(questions, ["Yes"] * 12))))
        assert main(["score", "mme", "--answers-file", "answers.jsonl"]) == 0
        for other in ("pope", "textvqa"):
            assert main(["score", other, "--answers-file", "answers.jsonl"]) == 2
            assert "Is this the answers file of" in capsys.readouterr().err

    def test_missing_files_are_listed_together(self, workplace, capsys):
        for name in ("llava_pope_test.jsonl", "coco/coco_pope_random.json"):
            (workplace / "playground/data/eval/pope/mini" / name).unlink()
        Path("answers.jsonl").write_text('{"question_id": 1, "text": "Yes"}')
        assert main(["score", "pope", "--answers-file", "answers.jsonl"]) == 2
        message = capsys.readouterr().err
        assert "llava_pope_test.jsonl" in message and "coco_pope_random.json" in message
        assert main(["score", "pope", "--answers-file", "none.jsonl"]) == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_the_answers_and_the_same_command_continues(workplace, checkpoint):
    write_pope(workplace / "playground/data/eval/pope/mini", pairs=50)
    words = ["pope", "--model-path", str(checkpoint), "--answers-file", "a.jsonl", *SMALL_DART[:-1], "12"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "llava.eval", *words, "--batch-size", "1"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a background job
    )
    answers = workplace / "a.jsonl"
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        if answers.exists() and answers.stat().st_size > 1000:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "answers are kept in a.jsonl" in message and "Traceback" not in message
    before = answers.read_bytes()
    assert 0 < before.count(b"\n") < 300
    assert main([*words, "--batch-size", "32"]) == 0
    assert answers.read_bytes().startswith(before) and len(read_lines(answers)) == 300
