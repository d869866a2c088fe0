"""Finding results by what was run: options, questions, weights, versions."""

import json

import pytest

from llava.errors import BadInput
from llava.loadoptions import LoadOptions
from llava.methodoptions import MethodOptions
from llava.report import __main__ as command
from llava.report import runs
from llava.report.budgets import budget, options, works_on
from llava.report.cells import Cell, Source, Target, decoder_layers
from llava.report.store import Store
from tests.report.made_results import LAYERS, result, write

NANO = Target("llava-nano", None, "llava", "llava", 8)
DART = Cell("pope", MethodOptions(method="dart", preset="128"))


def store(*folders, **more):
    return Store(Source(results=",".join(map(str, folders)), **more))


def test_a_run_is_found_by_its_options_however_they_were_typed(tmp_path):
    write(tmp_path, result("pope", "dart-128", 90.0), result("pope", "dart-128 criterion=random", 80.0))
    found = store(tmp_path)
    value = lambda cell: found.get(cell)["headline"]["value"]  # noqa: E731
    assert value(DART) == value(Cell("pope", MethodOptions(method="dart", keep=128))) == 90.0
    assert value(Cell("pope", MethodOptions(method="dart", keep=128, set=("criterion=random",)))) == 80.0
    assert found.get(Cell("pope", MethodOptions(method="dart", keep=64))) is None
    assert found.get(Cell("mme", MethodOptions(method="dart", keep=128))) is None


def test_an_option_that_came_later_counts_as_its_default(tmp_path):
    old = result("pope", "dart-128", 90.0)
    del old["method"]["options"]["scoring"]
    write(tmp_path, old)
    assert store(tmp_path).get(DART)
    assert not store(tmp_path).get(Cell("pope", MethodOptions(method="dart", keep=128, set=("scoring=float32",))))


def test_the_newest_of_several_and_all_folders(tmp_path):
    write(tmp_path / "a", result("pope", "dart-128", 1.0, finished="2026-01-02"))
    write(tmp_path / "b", result("pope", "dart-128", 2.0, finished="2026-01-03"), result("pope", "none", 3.0))
    found = store(tmp_path / "a", tmp_path / "b", tmp_path / "not there")
    assert found.get(DART)["headline"]["value"] == 2.0
    none = Cell("pope", MethodOptions(method="none"))
    assert set(found.records([DART, none])) == {DART, none}
    assert found.missing([DART, none, Cell("mme", DART.options)]) == [Cell("mme", DART.options)]


def test_two_spellings_of_one_missing_run_are_one(tmp_path):
    spelt = [Cell("pope", MethodOptions(method="dart", keep=128)), DART]
    assert store(tmp_path).missing(spelt) == spelt[:1]


def test_different_questions_in_one_column_are_refused_until_one_is_chosen(tmp_path):
    write(tmp_path, result("pope", "dart-128", 1.0), result("pope", "none", 2.0, 20))
    cells = [DART, Cell("pope", MethodOptions(method="none"))]
    with pytest.raises(BadInput, match=r"pope: results of different questions \(10 of.*20 of.*--limit"):
        store(tmp_path).records(cells)
    assert list(store(tmp_path, limit=10).records(cells)) == cells[:1]


def test_a_limit_takes_whole_sets_that_are_no_larger(tmp_path):
    whole = {"scored": 50, "in_data_set": 50, "limit": None}
    write(tmp_path, result("pope", "dart-128", 1.0, 50, samples=whole))
    assert store(tmp_path, limit=50).get(DART) and store(tmp_path, limit=80).get(DART)
    assert not store(tmp_path, limit=40).get(DART)


def test_other_kernels_and_precisions_are_refused_until_one_is_chosen(tmp_path):
    write(tmp_path, result("pope", "dart-128", 1.0), result("mme", "dart-128", 2.0, dtype="bfloat16"))
    cells = [DART, Cell("mme", DART.options)]
    with pytest.raises(BadInput, match=r"differ in dtype \(bfloat16, float32\)"):
        store(tmp_path).records(cells)
    assert list(store(tmp_path, model=LoadOptions(dtype="float32")).records(cells)) == [DART]


def other(name, digest="abc", **more):
    model = {"path": f"somewhere/{name}", "name": name, "family": "llava_next", "weights_digest": digest}
    return {"model": model, **more}


def test_results_of_other_models_are_left_aside(tmp_path):
    write(tmp_path, result("pope", "dart-128", 1.0), result("mme", "dart-128", 2.0, **other("next")))
    found = store(tmp_path)
    assert (found.target.name, found.target.n_layers, found.left_aside) == ("llava-nano", LAYERS, 1)
    elsewhere = store(tmp_path, model=LoadOptions("somewhere/next")).target
    assert (elsewhere.family, elsewhere.rule, elsewhere.embedded) == ("llava_next", "llava_next", False)


def test_of_several_models_or_weights_one_has_to_be_named(tmp_path):
    write(tmp_path, result("pope", "dart-128", 1.0, **other("a")), result("mme", "dart-128", 2.0, **other("b")))
    with pytest.raises(BadInput, match="--model-path"):
        _ = store(tmp_path).target
    write(tmp_path, result("gqa", "dart-128", 3.0, **other("a", "xyz")))
    with pytest.raises(BadInput, match=r"several weights of a: .*Add --weights"):
        store(tmp_path, model=LoadOptions("somewhere/a")).get(DART)
    assert store(tmp_path, model=LoadOptions("somewhere/a"), weights="ab").get(DART)


def test_what_cannot_be_read_is_told_and_left_out(tmp_path):
    write(tmp_path, result("pope", "dart-128", 1.0), result("mme", "dart-128", 1.0, format=0))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "bench.json").write_text(json.dumps({"bench": "prefill", "rows": []}))
    found = store(tmp_path)
    assert len(found.unreadable) == 2 and any("format 0" in problem for problem in found.unreadable)
    assert [path.name for path, _ in found.files("bench")] == ["bench.json"] and found.files("analysis") == []


def test_packed_results_are_read_like_the_folder(tmp_path, capsys):
    write(tmp_path / "runs", result("pope", "dart-128", 1.0), result("pope", "none", 2.0))
    into = tmp_path / "kept" / "results.json"
    assert command.main(["pack", str(tmp_path / "runs"), str(into)]) == 0
    assert "2 results" in capsys.readouterr().out and len(into.read_text().splitlines()) == 4
    assert store(into.parent).get(DART) == store(into).get(DART) == store(tmp_path / "runs").get(DART)
    assert command.main(["pack", str(tmp_path), str(tmp_path / "x.json")]) == 2
    assert "count twice" in capsys.readouterr().err
    assert command.main(["pack", str(tmp_path / "nothing"), str(into)]) == 2
    assert command.main(["table", "1", "--run", "--results", str(into)]) == 2
    assert f"{into} is a file, give a folder" in capsys.readouterr().err
    into.write_text("{")
    assert command.main(["summary", str(into)]) == 2
    assert f"{into} cannot be read" in capsys.readouterr().err


def test_layers_of_a_model_from_its_accounting():
    assert decoder_layers(result("pope", "dart-128 layer=3", 1.0)) == LAYERS
    assert decoder_layers(result("pope", "none", 1.0)) is None


@pytest.mark.parametrize(
    ("family", "rule", "method", "wanted"),
    [
        ("llava", "llava", "dart", {"preset": "128"}),
        ("llava", "llava", "prumerge", {"preset": "128"}),
        ("qwen2_vl", "qwen2_vl", "fastv", {"reduction_ratio": 0.778}),
        ("minicpm_v", "qwen2_vl", "dart", {"reduction_ratio": 0.778}),
        ("llava_next", "llava_next", "dart", {"keep": 0.222}),
    ],
)
def test_settings_become_what_each_family_takes(family, rule, method, wanted):
    target = Target("some", "path", family, rule)
    assert options(method, 0.778, target) == MethodOptions(method=method, **wanted)


def test_settings_of_next_and_of_the_embedded_model():
    next_ = Target("some", "path", "llava_next", "llava_next")
    assert options("dart", 0.889, next_).build("llava_next").budget == "released_next"
    assert options("fastv", 0.889, next_).preset == "320"
    assert options("prumerge", 0.889, NANO).set == ("layer=-2",)
    assert options("none", 0.889, NANO) == MethodOptions(method="none")
    assert works_on("dart", NANO) and not works_on("globalcom2", NANO) and not works_on("nothing", NANO)


def test_mixed_budgets_in_a_row_are_refused():
    odd = result("mme", "dart-128", 1.0)
    odd["accounting"]["asked"] = 100
    with pytest.raises(BadInput, match="DART at 128: its results were asked to keep different numbers"):
        budget([result("pope", "dart-128", 1.0), odd], "DART at 128")


def test_a_budget_is_the_mean_over_the_results():
    found = budget([result("pope", "dart-128", 1.0), result("mme", "dart-128", 1.0, 30)], "DART")
    mean = (2 * 576 + (LAYERS - 2) * 128) / LAYERS
    assert (found.asked, found.kept, found.mean_over_layers) == (128, 128, pytest.approx(mean))
    assert found.cache_percent == pytest.approx(100 * 128 / 576) and found.questions == 40


def test_the_sentence_about_missing_results_can_be_typed(tmp_path):
    wanted = [Cell("pope", MethodOptions(method="dart", preset="64", set=("criterion=random",)))]
    said = runs.command_for(wanted, "table 6", store(tmp_path, limit=5))
    assert f"python -m llava.report table 6 --results {tmp_path} --limit 5 --run" in said
    assert f"python -m llava.eval pope --method dart --preset 64 --set criterion=random --output {tmp_path}" in said
    assert wanted[0].label == "dart-criterion-random-64"
