"""Figures from hand-made results: what is plotted, what is refused, and that the files are the same every time."""

import csv
import json

import pytest

from llava.errors import BadData, BadInput
from llava.methodoptions import MethodOptions
from llava.report import budgets
from llava.report.cells import Cell, Source, Target, method_of
from llava.report.figures import ARTEFACTS, bars, glance, output, scores, style, sweeps, tradeoff
from llava.report.figures.diagram import toy
from llava.report.store import Store
from tests.report import fake_results as fake

pytest.importorskip("matplotlib")
SMALL = (
    bars.AgainstRandom(("gqa", "mme")),
    tradeoff.ScoreAgainstTime(("pope",)),
    sweeps.PrunedLayer(("pope",), (0.889,)),
    sweeps.PivotCount(("pope",), counts=(1, 8)),
    bars.PivotSource(("pope", "gqa")),
)


def drawn(figure, **changes):
    cells = figure.cells(fake.TINY)
    with style.drawing():
        return figure.draw(fake.TINY, fake.records(cells, **changes))


@pytest.mark.parametrize("figure", SMALL, ids=lambda figure: figure.name)
def test_every_planned_run_is_plotted_once_with_its_unpruned_score(figure):
    pruned = [cell for cell in figure.cells(fake.TINY) if cell.options.method != "none"]
    rows = [row for row in drawn(figure).rows if row.get("source") != "paper" and row["series"] != "none"]
    assert len(rows) == len(pruned) == len(set(pruned))
    assert {row["relative_percent"] for row in rows} == {75.0}  # 60 of 80
    assert {row["ms_per_question"] for row in rows} == {50.0}


def test_all_numbers_are_there_and_the_names_are_unique():
    assert [figure.name for figure in ARTEFACTS] == [f"figure{number}" for number in range(1, 9)] + ["budget"]
    for figure in ARTEFACTS:
        cells = figure.cells(fake.TINY)
        assert len(cells) == len(set(cells)), figure.name


def test_the_paper_stands_beside_ours_only_where_it_prints_numbers():
    rows = [row for row in drawn(bars.AgainstRandom(("gqa", "mme", "ocrbench"))).rows if row["source"] == "paper"]
    told = {(row["benchmark"], row["series"]): row["relative_percent"] for row in rows}
    # Table 1: GQA 61.9 unpruned, FastV 46.1 and SparseVLM 52.7 at 64; there is no row for random tokens
    assert told["GQA", "fastv"] == pytest.approx(100 * 46.1 / 61.9)
    assert told["GQA", "sparsevlm"] == pytest.approx(100 * 52.7 / 61.9)
    assert {series for _, series in told} == {"fastv", "sparsevlm"}
    assert all(row["kept_last_layer"] is None for row in rows)


def test_sweeps_fit_the_depth_of_the_model():
    assert sweeps.sweep_layers(6) == (1, 2, 3, 4, 5)
    assert sweeps.sweep_layers(32) == (2, 5, 10, 15, 20)
    assert sweeps.sweep_layers(28) == (2, 4, 9, 13, 18)  # 28/32 of the paper's


def test_dropping_every_token_is_a_curve_of_its_own():
    figure = sweeps.PrunedLayer(("pope",))
    empty = [cell for name, _, cell in figure.plan(fake.TINY) if name == sweeps.EMPTY]
    assert [cell.options.layer for cell in empty] == [1, 2, 3, 4, 5]
    assert {method_of(cell, fake.TINY).n_kept(576) for cell in empty} == {0}


def test_pivot_figures_keep_as_many_tokens_whatever_the_pivots():
    for figure in (sweeps.PivotCount(), bars.PivotSource()):
        methods = [method_of(cell, fake.TINY) for cell in figure.cells(fake.TINY)]
        assert {method.n_kept(576) for method in methods if method.name == "dart"} == {64}


def test_sweeps_share_the_rows_of_the_paper_s_table():
    table = {method_of(Cell("pope", budgets.options("dart", part, fake.TINY)), fake.TINY) for part in scores.REMOVED}
    swept = {method_of(cell, fake.TINY) for cell in sweeps.PrunedLayer(("pope",)).cells(fake.TINY)}
    assert table <= swept


def test_missing_results_are_refused_with_the_command(tmp_path):
    store = Store(Source(str(tmp_path)))
    with pytest.raises(BadData, match=r"figure6 is not drawn.*python -m llava.report figure 6 --results .* --run"):
        sweeps.PivotCount().make(store, tmp_path)
    with pytest.raises(BadData, match=r"figure 8 .*--run"):
        ARTEFACTS[7].make(store, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_local_score_is_left_out():
    figure = sweeps.PivotCount(("pope", "vqav2"), counts=(8,))
    found = fake.records(figure.cells(fake.TINY))
    for cell, one in found.items():
        if cell.benchmark == "vqav2":
            one["headline"]["value"] = None
    with style.drawing():
        assert [row["benchmark"] for row in figure.draw(fake.TINY, found).rows] == ["POPE"]


def test_a_score_of_zero_draws_nothing_instead_of_failing():
    assert all(row["relative_percent"] != row["relative_percent"] for row in drawn(SMALL[4], unpruned=0.0).rows)


def test_files_are_the_same_at_every_drawing_and_hold_the_numbers(tmp_path):
    figure = sweeps.PivotCount(("pope",), counts=(1, 8))
    written = []
    for folder in ("a", "b"):
        with style.drawing():
            content = figure.draw(fake.TINY, fake.records(figure.cells(fake.TINY)))
            written.append(output.write(content, tmp_path / folder, figure.name))
    assert [path.suffix for path in written[0]] == [".png", ".svg", ".csv", ".json", ".md"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]
    assert b"<dc:date>" not in written[0][1].read_bytes()
    with open(written[0][2], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pivots"] for row in rows] == ["1", "8"] and rows[0]["score"] == "60.0"
    assert [row["pivots"] for row in json.loads(written[0][3].read_text())["rows"]] == [1, 8]
    assert "| POPE | DART |" in written[0][4].read_text()


def test_the_diagram_shows_what_the_selection_keeps():
    example = toy()
    assert set(example.pivots) <= set(example.kept)
    assert len(example.kept) == 2 + 3 * 4  # visual pivots, and three pivots claim four each


def test_labels_are_moved_apart_and_stay_in_order():
    assert glance.apart([0.0, 10.0], 2.0) == [0.0, 10.0]
    assert glance.apart([1.0, 1.0, 1.0], 2.0) == [-1.0, 1.0, 3.0]
    moved = glance.apart([0.0, 0.5, 3.0, 9.0], 2.0)
    assert all(b - a >= 2.0 - 1e-9 for a, b in zip(moved, moved[1:], strict=False)) and moved[3] == 9.0


def test_the_glance_averages_what_all_runs_share():
    runs = [
        fake.record(Cell(benchmark, MethodOptions(method=method, keep=keep)), score)
        for benchmark, full in (("pope", 80.0), ("mme", 1000.0))
        for method, keep, score in (("dart", 64, full / 2), ("dart", 128, full * 0.75), ("random", 64, full / 4))
    ]
    runs += [fake.record(Cell(benchmark, scores.NONE), full) for benchmark, full in (("pope", 80.0), ("mme", 1000.0))]
    runs.append(fake.record(Cell("pope", MethodOptions(method="fastv", keep=64)), 80.0))  # one benchmark only: no mean
    found = glance.relative_scores(runs)
    assert {
        method: {keep: row["relative_percent"] for keep, row in curve.items()} for method, curve in found.items()
    } == {
        "dart": {64: 50.0, 128: 75.0},
        "random": {64: 25.0},
    }
    with style.drawing():
        assert len(glance.AllMethods().draw(runs).rows) == 3
        with pytest.raises(BadData, match="two or more budgets"):
            glance.AllMethods().draw([run for run in runs if run["method"]["label"] != "dart-128"])


def test_budgets_are_named_as_the_paper_names_them():
    assert scores.budget_name(0.889, fake.TINY) == "64 tokens"
    assert scores.budget_name(0.889, Target("q", "q", "qwen_vl", "qwen2_vl", 28)) == "\N{MINUS SIGN}88.9 %"


def test_a_model_of_unknown_depth_is_refused():
    with pytest.raises(BadInput, match="--model-path"):
        sweeps.PrunedLayer().cells(Target("x", "x", "llava", "llava"))


def test_the_glance_takes_the_plain_runs_out_of_a_folder_with_sweeps():
    def run(label, finished="1"):
        return {"benchmark": "pope", "method": {"name": label.split("-")[0], "label": label}, "finished": finished}

    old, new = run("dart-64"), run("dart-64", "2")
    sweep, empty = run("dart-layer-3-64", "3"), run("dart-pivots_visual-0-1")
    others = [run("none"), run("prumerge-layer--2-64")]
    assert glance.plain([old, sweep, new, empty, *others]) == [new, *others]


def test_times_of_shared_work_are_not_passed_off_as_those_of_single_questions():
    figure = tradeoff.ScoreAgainstTime(("pope",))
    found = fake.records(figure.cells(fake.TINY))
    with style.drawing():
        assert not any("shared work" in note for note in figure.draw(fake.TINY, found).notes)
        next(iter(found.values()))["reuse"] = {"hits": 3}
        assert any(note.startswith("Some of these runs shared work") for note in figure.draw(fake.TINY, found).notes)
