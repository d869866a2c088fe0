"""The paper's numbers in the package against the transcription they were taken from, and the averages formed again."""

import json

import pytest

from llava.errors import BadInput
from llava.report import paper
from llava.report.tables import costs, video
from tests.conftest import SHARED

TRANSCRIBED = SHARED / "spec" / "paper" / "tables.json"


@pytest.fixture(scope="module")
def transcribed():
    if not TRANSCRIBED.is_file():
        pytest.skip(f"the transcription is not here: {TRANSCRIBED}")
    return json.loads(TRANSCRIBED.read_text())["tables"]


@pytest.mark.parametrize("number", ["1", "3", "4", "6"])
def test_scores_and_averages_of_every_row(number, transcribed):
    rows, wanted = paper.rows(number), transcribed[number]["rows"]
    assert len(rows) == len(wanted)
    for row, truth in zip(rows, wanted, strict=True):
        assert (row.model, row.setting, row.method, row.pivot) == (
            *(truth[name] for name in ("model", "setting", "method")),
            truth.get("pivot"),
        )
        assert row.metrics == truth["metrics"]
        average = paper.average(row, rows)
        assert average.value == pytest.approx(truth["avg_recomputed"], abs=5e-4)
        assert average.count == truth["avg_n_benchmarks"]
        assert average.printed == truth["avg_printed"] and average.reproduced == truth["avg_reproduced"]
        assert row.removed == pytest.approx(truth.get("reduction") or row.removed)


def test_times_of_table_2(transcribed):
    for row, truth in zip(paper.raw("2")["rows"], transcribed["2"]["rows"], strict=True):
        assert all(truth[name] == value for name, value in row.items())


def test_averages_of_table_5(transcribed):
    for line, truth in zip(video.paper_lines(), transcribed["5"]["rows"], strict=True):
        for average, kind in zip(line.averages, ("accuracy", "score"), strict=True):
            wanted = truth[f"avg_{kind}_recomputed"]
            assert average.value is None if wanted is None else average.value == pytest.approx(wanted, abs=5e-4)
            assert average.printed == truth[f"avg_{kind}_printed"]
        assert {name: list(pair) for name, pair in line.pairs.items()} == {
            name: [pair["accuracy"], pair["score"]] for name, pair in truth["metrics"].items()
        }


def test_the_average_leaves_dashes_out_and_does_not_clip():
    assert paper.relative({"a": 50, "b": 30, "c": None}, {"a": 100, "b": 20, "c": 10}) == (100.0, 2)  # 50 % and 150 %
    assert paper.relative({"a": None}, {"a": 1}) == (None, 0)
    assert paper.plain([30.0, None], 3.0).value is None


def test_formulas_that_the_printed_efficiency_does_not_follow():
    assert costs.formula_percent(320, 2880) == pytest.approx(15.46, abs=0.005)  # by hand, T 32, d 4096, m 11008, L 2
    assert costs.cache_mb(320, 2880) == pytest.approx(251.7, abs=0.05)


def test_there_are_six_tables():
    with pytest.raises(BadInput, match="no table 7: give one of 1, 2"):
        paper.raw("7")
