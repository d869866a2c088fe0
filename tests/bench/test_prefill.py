"""The prefill command: what a measurement reports, what is left out, the file it writes. No time is judged."""

import json
from dataclasses import replace

import pytest
import torch

from llava.bench import __main__ as command
from llava.bench import prefill, sizes
from llava.bench.prefill import measure
from llava.reduction import registry
from tests.bench.subjects import TINY, Broken, subject


def methods(**options):
    return {"none": registry.create("none"), "random": registry.create("random", count="int", **options)}


def test_a_measurement_reports_counts_and_operations():
    measured = measure(subject(batch=2), methods(keep=9), repeats=2, warmup=1)
    none, random = measured.rows
    assert measured.complete and not measured.left_out
    assert none["final"] == [49, 49] and none["flops_ratio"] == 1 and none["speedup"]["median"] == 1
    assert random["final"] == [9, 9] and random["mean_over_layers"] == [29, 29]  # two of four layers see all 49
    assert random["flops_ratio"] > random["flops_ratio_with_vision"] > 1 and random["selection_seconds"]["median"] > 0
    assert random["prefill_seconds"]["repeats"] == random["llm_seconds"]["repeats"] == 2
    assert random["vision_seconds"]["median"] + random["llm_seconds"]["median"] > 0
    # keys and values of 32 float32 numbers: 56 columns in two layers, 16 in the other two, two samples
    assert random["cache_bytes"] == 2 * (2 * 56 + 2 * 16) * 2 * 32 * 4


def test_a_slice_of_a_model_stands_for_the_whole():
    """Selection is a share of the whole unpruned prefill: the layers that are not built count, the tower does once."""
    none, _ = measure(subject(shape=replace(TINY, layers=40), layers=4), methods(keep=9), 1, 0).rows
    seen, llm = none["prefill_seconds"]["median"], none["llm_seconds"]["median"]
    assert none["whole_unpruned_seconds"] == pytest.approx(seen + 9 * llm)


def test_a_next_shape_cuts_a_square_image_into_tiles(monkeypatch):
    monkeypatch.setattr(sizes, "TILE", 42)  # 3 x 3 patches
    measured = subject(45, shape=replace(TINY, next=True))
    assert measured.inputs["pixel_values"].shape == (1, 5, 3, 42, 42)
    assert measured.facts["visual_tokens"] == 9 + 6 * (6 + 1)  # the whole, and crops whose rows end with a newline
    # five tiles of 9 patches and [CLS] through one of the two layers: the features are those before the last
    assert measured.facts["tower_flops"] == 5 * 2 * (4 * 10 * 64 * 64 + 2 * 10 * 10 * 64 + 2 * 10 * 64 * 64)
    none, dart = measure(measured, {**methods(keep=9), "random": registry.create("dart", keep=9)}, 1, 0).rows
    assert none["final"] == [51] and dart["final"][0] < 51


def test_a_method_that_cannot_work_is_left_out_with_the_reason():
    said = []
    measured = measure(subject(16), methods(keep=4, layer=9), repeats=1, warmup=0, say=said.append)
    assert [row["method"] for row in measured.rows] == ["none"]
    assert "layer=9 is outside the model" in measured.left_out["random"] and measured.left_out["random"] in said[0]


def test_what_does_not_fit_is_recorded_and_the_others_go_on():
    rows = measure(subject(16), {**methods(keep=4), "broken": Broken()}, repeats=1, warmup=0).rows
    assert [row["status"] for row in rows] == ["ok", "ok", "out of memory"] and "3 GiB" in rows[2]["reason"]
    rows = measure(subject(16), {"none": Broken(), "random": methods(keep=4)["random"]}, repeats=1, warmup=0).rows
    assert [(row["method"], row["status"]) for row in rows] == [("random", "ok"), ("none", "out of memory")]
    assert rows[0]["speedup"] is None and rows[0]["selection_share"] is None
    assert "out of memory" in "\n".join(prefill.lines(rows))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Wrong(Broken):
        def __call__(self, model):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        measure(subject(16), {"none": Wrong()}, repeats=1, warmup=0)


WORDS = "prefill --shape tiny --tokens 49 --keep 9 --repeats 2 --warmup 0 --text 8 --device cpu --output"


def test_the_command_writes_the_raw_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sizes.SHAPES, "tiny", TINY)
    path = tmp_path / "deep" / "raw.json"
    assert command.main([*WORDS.split(), str(path)]) == 0
    raw = json.loads(path.read_text())
    assert (raw["format"], raw["bench"], raw["complete"], raw["left_out"]) == (1, "prefill", True, {})
    assert [row["method"] for row in raw["rows"]] == ["none", "dart", "random"]
    assert raw["options"]["tokens"] == 49 and raw["options"]["methods"] == "dart,random"
    assert raw["subject"]["visual_tokens"] == 49 and raw["subject"]["prompt_tokens"] == 57
    assert raw["environment"]["torch"] == torch.__version__ and raw["environment"]["dtype"] == "float32"
    assert "FLOPs say" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sizes.SHAPES, "tiny", TINY)
    passes = []
    counted = prefill.DynamicCache

    def cache(**options):
        passes.append(None)
        if len(passes) == 8:  # three methods tried, one round of three, and the second of the next
            raise KeyboardInterrupt
        return counted(**options)

    monkeypatch.setattr(prefill, "DynamicCache", cache)
    path = tmp_path / "raw.json"
    assert command.main([*WORDS.split(), str(path)]) == 130
    raw = json.loads(path.read_text())
    assert not raw["complete"] and [row["prefill_seconds"]["repeats"] for row in raw["rows"]] == [1, 1, 1]
    assert "marked as incomplete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--shape smal", "Unknown shape 'smal'. Known: small"),
        ("--keep 0 --repeats 0", "2 mistakes"),
        ("--methods dart,dat", "Did you mean 'dart'"),
        ("--dtype int8", "Unknown dtype"),
        ("--layers 2 --tower big", "2 mistakes"),
        ("--tokens 100 --keep 100", "not below the 100 visual tokens"),
        ("--model-path here --shape small --tokens 49", "2 mistakes"),
        ("--benchmark pope", "--benchmark needs --model-path"),
        ("--model-path here --benchmark pop", "Did you mean 'pope'"),
        ("--device mps", "'mps' cannot be measured"),
        ("--output somewhere", "give a name in .json"),
        (f"--output {__file__}/x.json", f"{__file__} is a file, give a folder"),
        ("--keep 0.2.1", "number"),
    ],
)
def test_bad_options(words, sentence, capsys):
    assert command.main(["prefill", *words.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so its options are not wrong")
def test_kernels_and_devices_that_are_not_there(capsys):
    words = "--device cuda --attn-implementation flash_attention_2 --batch 0 --keep 2000 --tokens 1000"
    assert command.main(["prefill", *words.split()]) == 2
    error = capsys.readouterr().err
    assert "4 mistakes" in error and "no CUDA device" in error and "flash-attn" in error
    assert command.main(["prefill", "--attn-implementation", "flash"]) == 2
    assert "Unknown attention kernel" in capsys.readouterr().err


def test_an_unknown_command(capsys):
    assert command.main(["prefil"]) == 2
    assert "Did you mean 'prefill'" in capsys.readouterr().err
    assert command.main(["--help"]) == 0


def test_a_model_or_a_later_round_that_does_not_fit_is_said(monkeypatch, capsys):
    from llava.bench import shapes, trials

    monkeypatch.setitem(sizes.SHAPES, "tiny", TINY)

    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(trials, "take_turns", too_large)
        assert command.main(WORDS.split()[:-1]) == 1
    assert "A later round does not fit into the memory (CUDA out of memory" in capsys.readouterr().err
    monkeypatch.setattr(shapes, "random_model", too_large)
    assert command.main(WORDS.split()[:-1]) == 1
    assert "tiny does not fit" in capsys.readouterr().err
