"""SEED-Bench: the card's example and its upload; MM-Vet: the result file for the judge."""

import json

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from tests.eval.small_data import read_lines
from tests.eval.small_sets import SEED, write_mm_vet, write_seed_bench


def test_seed_worked_example(tmp_path):
    rows = [{**row, "text": case[4]} for row, case in zip(write_seed_bench(tmp_path), SEED, strict=True)]
    score = get("seed_bench").score(tmp_path, rows)
    found = {metric.name: metric.value for metric in score.metrics if not metric.group}
    assert score.headline.value == 60
    assert found["image_accuracy"] == pytest.approx(200 / 3) and found["video_accuracy"] == 50
    # A type without any right answer is 0; the official script stops there.
    assert {metric.group: metric.value for metric in score.metrics if metric.group}["Action Prediction"] == 0
    part = get("seed_bench").score(tmp_path, rows[:2])
    assert part.headline.value == 20 and "3 questions have no answer" in part.notes[0] and "50.00 %" in part.notes[0]
    path = get("seed_bench").export(tmp_path, rows, "ckpt")[0]
    assert read_lines(path)[1] == {"question_id": 102, "prediction": "B."} and path.parent.name == "answers_upload"


def test_mm_vet_result_file(tmp_path):
    rows = write_mm_vet(tmp_path)
    score = get("mm_vet").score(tmp_path, rows)
    assert score.headline.value is None and "GPT-4" in score.notes[0]
    path = get("mm_vet").export(tmp_path, rows, "ckpt")[0]
    assert path == tmp_path / "results" / "ckpt.json"
    assert json.loads(path.read_text()) == {"v1_0": "one", "v1_1": "two", "v1_2": "three"}
    with pytest.raises(BadData, match="1 of 3"):
        get("mm_vet").export(tmp_path, rows[1:], "ckpt")
