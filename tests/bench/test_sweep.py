"""The sweep: its cells, what does not fit, Ctrl-C, going on with an earlier file. No time is judged."""

import json

import pytest
import torch

from llava.bench import __main__ as command
from llava.bench import prefill, sizes, sweep
from llava.bench.breakeven import over_cells
from tests.bench.subjects import TINY

WORDS = "sweep --shape tiny --text 8 --keep 4,0.5 --methods fastv --repeats 1 --warmup 0 --device cpu".split()  # noqa: SIM905


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setitem(sizes.SHAPES, "tiny", TINY)
    return tmp_path / "sweep.json"


def run(path, *words):
    return command.main([*WORDS, *words, "--output", str(path)])


def cells(path):
    return [(row["tokens"], row["batch"], row["kernel"]) for row in json.loads(path.read_text())["rows"]]


def test_every_cell_is_measured(path, capsys):
    assert run(path, "--tokens", "16,49", "--batch", "2", "--kernel", "sdpa,eager", "--new-tokens", "2") == 0
    raw = json.loads(path.read_text())
    assert raw["complete"] and raw["environment"]["device"].startswith("CPU")
    assert set(cells(path)) == {(n, b, kernel) for n in (16, 49) for b in (2,) for kernel in ("sdpa", "eager")}
    for row in raw["rows"]:
        none, count, half = row["methods"]
        assert [none["method"], count["method"], half["method"]] == ["none", "fastv-4", "fastv-0.5"]
        assert none["final"] == [row["visual_tokens"]] * row["batch"]
        assert count["final"] == [4] * row["batch"] and half["final"] == [row["tokens"] // 2] * row["batch"]
        assert none["decode"]["token_seconds"]["repeats"] == 1
    assert {(one["method"], one["batch"], one["kernel"]) for one in raw["break_even"]} == {
        (name, b, kernel) for name in ("fastv-4", "fastv-0.5") for b in (2,) for kernel in ("sdpa", "eager")
    }
    shown = capsys.readouterr().out
    assert "4 cells, 4 asked for" in shown and "fastv-4 (batch 2, sdpa): its prefill is" in shown


def test_break_even_is_between_the_lengths():
    def row(n, none, dart):
        times = {"none": none, "dart": dart}
        methods = [{"method": m, "status": "ok", "prefill_seconds": {"median": t}} for m, t in times.items()]
        return {"tokens": n, "visual_tokens": n, "batch": 1, "kernel": "sdpa", "status": "ok", "methods": methods}

    large = {**row(900, 0, 0), "status": "out of memory", "methods": []}
    (found,) = over_cells([row(300, 9, 3), row(100, 1, 3), large, row(200, 4, 3)])
    assert found["wins"] == "from" and found["at"] == pytest.approx(100 + 100 * 2 / 3)
    assert found["measured"] == (100, 300)
    assert over_cells([row(100, 1, 3)]) == []


def test_the_same_command_measures_nothing_twice_and_a_longer_list_adds(path, monkeypatch):
    assert run(path, "--tokens", "16") == 0
    first = json.loads(path.read_text())["rows"]
    measured = []
    original = prefill.measure
    monkeypatch.setattr(prefill, "measure", lambda subject, *more: measured.append(subject) or original(subject, *more))
    assert run(path, "--tokens", "16") == 0 and not measured
    assert run(path, "--tokens", "16,49", "--batch", "1,2") == 0
    assert cells(path) == [(16, 1, "sdpa"), (16, 2, "sdpa"), (49, 1, "sdpa"), (49, 2, "sdpa")]
    assert len(measured) == 3 and json.loads(path.read_text())["rows"][0] == first[0]
    assert run(path, "--tokens", "16", "--restart") == 0 and cells(path) == [(16, 1, "sdpa")]


def test_ctrl_c_keeps_the_cells_and_the_same_command_goes_on(path, monkeypatch, capsys):
    original = prefill.measure

    def measure(subject, *more):
        if subject.facts["visual_tokens"] == 49:
            raise KeyboardInterrupt
        return original(subject, *more)

    monkeypatch.setattr(prefill, "measure", measure)
    assert run(path, "--tokens", "16,49") == 130
    assert not json.loads(path.read_text())["complete"] and cells(path) == [(16, 1, "sdpa")]
    assert "marked as incomplete" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setitem(sizes.SHAPES, "tiny", TINY)
    assert run(path, "--tokens", "16,49") == 0
    assert json.loads(path.read_text())["complete"] and len(cells(path)) == 2


def test_a_cell_that_was_cut_short_is_measured_again(path):
    assert run(path, "--tokens", "16") == 0
    raw = json.loads(path.read_text())
    raw["rows"][0] |= {"complete": False, "methods": []}
    path.write_text(json.dumps(raw))
    assert run(path, "--tokens", "16") == 0
    assert json.loads(path.read_text())["rows"][0]["methods"]


def test_what_does_not_fit_is_recorded_and_the_sweep_goes_on(path, monkeypatch, capsys):
    original_batch, original_build = sweep.with_batch, sweep.build

    def with_batch(subject, batch):
        if batch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nand more")
        return original_batch(subject, batch)

    def build(model, prompt, n_questions):
        if prompt.tokens == 25:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
        return original_build(model, prompt, n_questions)

    monkeypatch.setattr(sweep, "with_batch", with_batch)
    monkeypatch.setattr(sweep, "build", build)
    assert run(path, "--tokens", "16,25", "--batch", "1,2") == 0
    raw = json.loads(path.read_text())
    assert [row["status"] for row in raw["rows"]] == ["ok", *["out of memory"] * 3]
    assert raw["complete"] and raw["rows"][1]["reason"] == "CUDA out of memory. Tried to allocate 9 GiB"
    assert capsys.readouterr().out.count("out of memory") == 3


def test_a_file_of_another_sweep_or_machine_is_refused(path, monkeypatch, capsys):
    assert run(path, "--tokens", "16") == 0
    assert command.main([*WORDS, "--repeats", "2", "--tokens", "16", "--output", str(path)]) == 2
    assert "repeats 1 there, 2 here" in capsys.readouterr().err
    raw = json.loads(path.read_text())
    raw["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(raw))
    assert run(path, "--tokens", "16,49") == 2
    assert "measured elsewhere (torch 1.0 there" in capsys.readouterr().err
    path.write_text(json.dumps({**raw, "format": 0}))
    assert run(path, "--tokens", "16") == 2
    path.write_text("{")
    assert run(path, "--tokens", "16") == 2 and "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--tokens 16,x", "'x' cannot be used"),
        ("--tokens 2,16 --keep 4 --batch 0 --kernel sdp", "3 mistakes"),
        ("--tokens 16 --keep 16,2,0", "2 mistakes"),
        ("--kernel sdp", "Did you mean 'sdpa'"),
        ("--keep , --methods dat --new-tokens 1", "3 mistakes"),
        ("--model-path here --tokens 16", "--tokens is for a --shape"),
        ("--shape smal --kernel eager", "Unknown shape"),
    ],
)
def test_bad_options(words, sentence, capsys):
    assert command.main(["sweep", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
