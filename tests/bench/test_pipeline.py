"""The pipeline bench: which parts are on in which run, the same answers everywhere. No time is judged."""

import json

import pytest
import torch

from llava.bench import pipeline as bench
from llava.bench import shapes
from llava.bench.livebytes import LiveBytes
from llava.bench.pipeline_parts import PARTS, Pipeline
from llava.bench.pipeline_subjects import random_weights
from llava.commandline import run
from llava.model.fast import Fast
from llava.reduction import DART, NoReduction

TINY = shapes.Shape(layers=4, width=32, heads=2, kv_heads=2, ffn=48)


@pytest.fixture
def subject(tmp_path, monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    return random_weights("tiny", None, 16, 2, 3, 3, "float32", "cpu", "sdpa", tmp_path)


def test_parts_are_switched_on_one_after_the_other_and_off_one_by_one():
    plans = bench.plans(["a", "b", "features", "prefix"], "dart 64", ablation=True)
    assert list(plans) == [
        "unpruned, as released",
        "unpruned, batched only",
        "unpruned, all parts",
        "dart 64, as released",
        "dart 64, + a",
        "dart 64, + b",
        "dart 64, + features",
        "dart 64, all parts",
        "dart 64, all but a",
        "dart 64, all but b",
        "dart 64, all but features",
        "dart 64, all but prefix",
    ]
    assert plans["dart 64, + b"] == (True, {"a", "b"}) and plans["unpruned, as released"] == (False, set())
    assert plans["dart 64, all but features"][1] == {"a", "b"}  # without features there is no prefix
    assert len(bench.plans(PARTS, "dart 64", ablation=False)) == 5


def test_every_pipeline_gives_the_same_answers(subject):
    fast = Fast(patience=10**9)  # the functions that would be compiled, run as they are
    for method in (NoReduction(), DART(keep=8)):
        plain = Pipeline(subject, method, frozenset(), 4, 1 << 20, fast).answers()
        assert len(plain) == 6 and len(set(plain)) > 1
        for on, _ in enumerate(PARTS, start=1):
            pipeline = Pipeline(subject, method, frozenset(PARTS[:on]), 4, 1 << 20, fast)
            assert pipeline.answers() == plain, PARTS[:on]
    statistics = pipeline.reuse.statistics()
    assert statistics["prefix"]["hits"] and statistics["features"]["misses"] == 2  # one for each image


def test_what_is_on_is_on(subject):
    """As released, all layers of the tower run and the head sees the whole prompt; not so with all parts."""
    model = subject.model
    seen = {"head": [], "tower": 0}
    model.lm_head.register_forward_hook(lambda module, given, output: seen["head"].append(given[0].shape[1]))
    last = model.model.vision_tower.encoder.layers[-1].mlp
    last.register_forward_hook(lambda *_: seen.update(tower=seen["tower"] + 1))
    for parts, calls in ((frozenset(), 6), (frozenset(PARTS) - {"compiled"}, 0)):
        seen.update(head=[], tower=0)
        Pipeline(subject, DART(keep=8), parts, 4, 1 << 20, Fast()).answers()
        assert seen["tower"] == calls
        assert (max(seen["head"]) > 1) == (not parts)


def test_live_bytes_count_what_is_alive():
    counting = LiveBytes()
    with counting:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100) * 2
        del b, c
    assert counting.peak == 8000 and counting.now == 0


def test_the_command_prints_a_table_and_writes_the_raw_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    path = tmp_path / "deep" / "pipeline.json"
    words = "--shape tiny --tokens 16 --keep 8 --images 1 --questions 2 --new-tokens 2 --batch 2 --repeats 1 --warmup 0"
    words = [*words.split(), "--device", "cpu", "--output", str(path)]
    assert run(bench.pipeline, bench.PipelineOptions, words, prog="pipeline") == 0
    raw = json.loads(path.read_text())
    assert [row["pipeline"] for row in raw["rows"]] == [
        "unpruned, as released",
        "unpruned, batched only",
        "unpruned, all parts",
        "dart-8, as released",
        "dart-8, all parts",
    ]
    assert raw["subject"]["questions"] == 2
    assert all(row["different_answers"] == 0 and row["peak_bytes"] > 0 for row in raw["rows"])
    assert raw["rows"][0]["over_unpruned_released"]["median"] == 1
    assert "x unpruned released" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--batch 0 --keep 0", "--keep 0"),
        ("--shape huge", "Unknown shape"),
        ("--shape small --model-path here", "exclude each other"),
        ("--method dort", "Did you mean 'dart'"),
        ("--benchmark pop", "pope"),
    ],
)
def test_bad_options(words, sentence, capsys):
    assert run(bench.pipeline, bench.PipelineOptions, words.split(), prog="pipeline") == 2
    assert sentence in capsys.readouterr().err
