"""The prefill bench: order of the runs, spread, what a measurement reports, bad options. No time is judged."""

import json
from dataclasses import replace

import pytest
import torch

from llava.bench import __main__ as command
from llava.bench import shapes
from llava.bench.prefill import measure
from llava.bench.timing import Spread, interleaved, ratios
from llava.reduction import registry

TINY = shapes.Shape(layers=4, width=32, heads=2, kv_heads=2, ffn=48)


def test_spread_is_the_median_and_the_quartiles():
    spread = Spread.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (spread.median, spread.low, spread.high, spread.repeats) == (3.0, 2.0, 4.0, 5)
    assert Spread.of([7.0]).low == Spread.of([7.0]).high == 7.0


def test_ratios_pair_the_repeats_of_one_round():
    assert ratios([2.0, 30.0], [1.0, 10.0]).median == 2.5


def test_runs_take_turns_and_warm_up_is_not_counted():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = interleaved(runs, torch.device("cpu"), repeats=2, warmup=1)
    assert order == ["a", "b"] * 3 and [len(x) for x in seconds.values()] == [2, 2]


def test_a_measurement_reports_counts_and_operations():
    model = shapes.random_model(TINY, 50, torch.float32, torch.device("cpu"), "sdpa")
    inputs = shapes.random_inputs(model, 3, 4, batch=2)
    assert model.config.image_seq_length == 49 and inputs["input_ids"].shape == (2, 56)
    methods = {"none": registry.create("none"), "random": registry.create("random", keep=9, count="int")}
    none, random = measure(model, inputs, methods, repeats=2, warmup=1)
    assert none["final"] == [49, 49] and none["flops_ratio"] == 1 and none["speedup"]["median"] == 1
    assert random["final"] == [9, 9] and random["mean_over_layers"] == [29, 29]  # two of four layers see all 49
    assert random["flops_ratio"] > 1 and random["selection_seconds"]["median"] > 0
    # keys and values of 32 float32 numbers: 56 columns in two layers, 16 in the other two, two samples
    assert random["cache_bytes"] == 2 * (2 * 56 + 2 * 16) * 2 * 32 * 4


def test_a_next_shape_cuts_a_square_image_into_tiles(monkeypatch):
    monkeypatch.setattr(shapes, "TILE", 42)  # 3 x 3 patches
    shape = replace(TINY, next=True)
    model = shapes.random_model(shape, 45, torch.float32, torch.device("cpu"), "sdpa")
    inputs = shapes.random_inputs(model, 3, 4)
    assert inputs["pixel_values"].shape == (1, 5, 3, 42, 42)
    assert model.config.image_seq_length == 9 + 6 * (6 + 1)  # the whole, and crops whose rows end with a newline
    methods = {name: registry.create(name, **options) for name, options in {"none": {}, "dart": {"keep": 9}}.items()}
    none, dart = measure(model, inputs, methods, repeats=1, warmup=0, of_layers=40)
    assert none["final"] == [51] and dart["final"][0] < 51
    whole, seen = none["whole_unpruned_seconds"], none["prefill_seconds"]["median"]
    assert seen < whole < 20 * seen  # forty layers instead of four, the tower once


def test_a_method_that_cannot_work_is_left_out_with_the_reason():
    model = shapes.random_model(TINY, 16, torch.float32, torch.device("cpu"), "sdpa")
    methods = {"none": registry.create("none"), "random": registry.create("random", keep=4, layer=9)}
    said = []
    rows = measure(model, shapes.random_inputs(model, 3, 4), methods, repeats=1, warmup=0, say=said.append)
    assert [row["method"] for row in rows] == ["none"] and "layer=9 is outside the model" in said[0]


def test_the_command_writes_the_raw_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    path = tmp_path / "deep" / "raw.json"
    words = "prefill --shape tiny --tokens 49 --keep 9 --repeats 1 --warmup 0 --text 8 --device cpu --output"
    assert command.main([*words.split(), str(path)]) == 0
    raw = json.loads(path.read_text())
    assert [row["method"] for row in raw["rows"]] == ["none", "dart", "random"]
    assert raw["environment"]["torch"] == torch.__version__ and raw["environment"]["dtype"] == "float32"
    assert "FLOPs say" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--shape smal", "Unknown shape 'smal'. Known: small"),
        ("--keep 0 --repeats 0", "2 mistakes"),
        ("--methods dart,dat", "Did you mean 'dart'"),
        ("--dtype int8", "Unknown dtype"),
        ("--layers 2 --tower big", "2 mistakes"),
    ],
)
def test_bad_options(words, sentence, capsys):
    assert command.main(["prefill", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
