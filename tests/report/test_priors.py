"""What a model knows beside what it guesses: pairs of runs with and without images."""

import json

import pytest

from llava.errors import BadData
from llava.report import priors
from llava.report.__main__ import main
from tests.report.made_results import COMMON


def run(benchmark, metrics, headline, blank=False, scored=50):
    return {
        **COMMON,
        "benchmark": benchmark,
        "title": benchmark.upper(),
        "method": {"name": "none", "label": "none"},
        "metrics": [dict(zip(("name", "group", "value"), metric, strict=True)) for metric in metrics],
        "headline": headline,
        "samples": {"scored": scored},
        "configuration": {"pixels": {"blank": True}} if blank else {},
        "accounting": {},
    }


POPE = [
    run("pope", [("f1", "a", 99.0), ("accuracy", "a", 98.0), ("accuracy", "b", 96.0)], {"value": 97.0, "unit": "%"}),
    run("pope", [("accuracy", "a", 50.0), ("accuracy", "b", 52.0)], {"value": 66.0, "unit": "%"}, blank=True),
]
OCR = [
    run("ocr", [("points", "", 30.0)], {"value": 30.0, "unit": "points"}, scored=60),
    run("ocr", [("points", "", 3.0)], {"value": 3.0, "unit": "points"}, blank=True, scored=60),
]


def test_accuracies_beside_blank_images_and_their_mean():
    header, rows = priors.table(POPE + OCR + [run("gqa", [("accuracy", "", 9.0)], {"value": 9.0, "unit": "%"})])
    assert header[-1] == "above it"
    assert rows == [
        ["OCR", "60", "50.0", "5.0", "+45.0"],
        ["POPE", "50", "97.0", "51.0", "+46.0"],
        ["mean", "", "73.5", "28.0", "+45.5"],
    ]


def test_what_only_a_judge_can_score_is_left_out():
    judged = [run("mm_vet", [], {"value": None, "unit": ""}, blank=blank) for blank in (False, True)]
    assert priors.table(POPE + judged) == priors.table(POPE)


def test_without_a_pair_it_says_how_to_make_one():
    with pytest.raises(BadData, match="--blank"):
        priors.table(POPE[:1])


def test_the_command_writes_into_a_page(tmp_path, capsys):
    for number, one in enumerate(POPE):
        (tmp_path / f"{number}.json").write_text(json.dumps(one), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- priors -->\n<!-- end of priors -->\n", encoding="utf-8")
    assert main(["priors", "--results", str(tmp_path), "--update", str(page)]) == 0
    assert "| POPE | 50 | 97.0 | 51.0 | +46.0 |" in page.read_text(encoding="utf-8")
    assert "POPE" in capsys.readouterr().out
