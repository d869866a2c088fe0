"""Whole benchmark runs: sums, ratios, scores and what Ctrl-C leaves. No time is judged."""

import json

import pytest

from llava.bench import __main__ as command
from llava.bench import total
from llava.bench.total import Batch, Whole, row
from llava.eval import benchmarks
from llava.eval.data import DataSet
from tests.eval.small_data import read_lines, write_pope
from tests.model.llava_folder import write_checkpoint


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("total")
    write_checkpoint(folder / "tiny")
    write_pope(folder / "pope", pairs=1)
    shared = f"total --model-path {folder / 'tiny'} --data {folder / 'pope'} --device cpu --max-new-tokens 2 --keep 2"
    return shared.split()


def test_the_command(words, tmp_path, capsys):
    path = tmp_path / "total.json"
    more = ["--methods", "divprune,globalcom2", "--batch", "4", "--output", str(path)]
    assert command.main([*words, *more]) == 0
    raw = json.loads(path.read_text())
    assert raw["complete"] and list(raw["left_out"]) == ["globalcom2"]  # there are no tiles
    assert raw["subject"]["questions"] == raw["subject"]["questions_answered"] == 6
    none, divprune = raw["rows"]
    assert (none["accounting"]["final"], divprune["accounting"]["final"]) == (4, 2)
    assert none["speedup_total"] == none["speedup_prefill"] == none["same_answers"] == 1
    assert divprune["seconds_per_question"]["repeats"] == 2  # batches of four and two
    assert divprune["score"]["name"] == "f1" and divprune["questions"] == 6
    parts = sum(divprune[f"{part}_seconds"] for part in total.SECONDS)
    assert 0 < parts <= divprune["total_seconds"]
    assert "divprune" in capsys.readouterr().out


def batch(total, prefill, texts, shift=0):
    seconds = {"preprocess": 0.5, "prefill": prefill, "decode": total - prefill - 0.5}
    rows = [{"question_id": shift + n, "text": text} for n, text in enumerate(texts)]
    return Batch(seconds, total, {"final": 3.0}, rows)


def test_sums_and_ratios_by_hand(tmp_path):
    dataset = DataSet(benchmarks.get("pope"), tmp_path, "custom")  # without labels there is no score
    none = [batch(4, 2, ["yes", "no"]), batch(8, 4, ["no"])]
    dart = [batch(2, 1, ["yes", "yes"]), batch(2, 1, ["no"])]
    whole = Whole({"none": none, "dart": dart}, True, {})
    found = row("dart", whole, dataset)
    assert found["speedup_total"] == 12 / 4 and found["speedup_prefill"] == 6 / 2
    assert found["speedup_per_batch"]["median"] == (2 + 4) / 2
    assert found["seconds_per_question"]["median"] == (1 + 2) / 2
    assert found["same_answers"] == 2 / 3 and found["score"] is None and found["accounting"]["final"] == 3
    assert (found["prefill_seconds"], found["decode_seconds"], found["preprocess_seconds"]) == (2, 1, 1)
    alone = row("dart", Whole({"dart": dart}, True, {}), dataset)
    assert alone["speedup_total"] is None and alone["total_seconds"] == 4


def counting(monkeypatch, error, at):
    calls = []
    original = total._answer

    def answer(*given):
        calls.append(None)
        if len(calls) == at:
            raise error
        return original(*given)

    monkeypatch.setattr(total, "_answer", answer)


def test_ctrl_c_keeps_the_batches_that_all_have_answered(words, tmp_path, monkeypatch, capsys):
    counting(monkeypatch, KeyboardInterrupt(), at=2 + 2 + 2)  # two tried, one batch each, the second one's second
    path = tmp_path / "total.json"
    assert command.main([*words, "--methods", "divprune", "--output", str(path)]) == 130
    raw = json.loads(path.read_text())
    assert not raw["complete"] and [row["questions"] for row in raw["rows"]] == [1, 1]
    assert "marked as incomplete" in capsys.readouterr().err


def test_ctrl_c_at_once(words, monkeypatch):
    counting(monkeypatch, KeyboardInterrupt(), at=3)
    assert command.main([*words, "--methods", "divprune"]) == 130


def test_a_question_that_cannot_be_asked_is_left_out_for_all(words, tmp_path, capsys):
    pope = tmp_path / "pope"
    write_pope(pope, pairs=2)
    (pope / "val2014" / read_lines(pope / "llava_pope_test.jsonl")[0]["image"]).write_bytes(b"damaged")
    path = tmp_path / "total.json"
    assert command.main([*words, "--data", str(pope), "--methods", "divprune", "--output", str(path)]) == 0
    raw = json.loads(path.read_text())
    assert raw["subject"]["questions_left_out"] == 6 and [row["questions"] for row in raw["rows"]] == [6, 6]
    assert "left out for all methods: a question could not be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--benchmark pop --batch 0 --methods dat", "3 mistakes"),
        ("--limit 0 --device cud", "2 mistakes"),
        ("--data nowhere", "neither full nor mini nor a folder"),
    ],
)
def test_bad_options(more, sentence, capsys):
    assert command.main(["total", *more.split()]) == 2
    assert sentence in capsys.readouterr().err
