"""GQA: the card's worked example, the conversion, the break-downs, the file for the official tool."""

import json

import pytest

from llava.eval.benchmarks import get
from llava.eval.benchmarks.gqa import converted, distribution, reasoning_steps
from tests.eval.small_sets import GQA_GOLD, write_gqa

RIGHT = [1, 1, 0, 0, 0, 1]


@pytest.fixture
def root(tmp_path):
    write_gqa(tmp_path)
    return tmp_path


def worked(root):
    return [{**row, "text": text} for row, (_, _, text) in zip(write_gqa(root), GQA_GOLD, strict=True)]


def test_worked_example(root):
    score = get("gqa").score(root, worked(root))
    found = {(metric.group, metric.name): metric.value for metric in score.metrics}
    assert score.headline.value == 50 and found["", "binary"] == 50 and found["", "open"] == 50
    assert score.printout[0] == "Accuracy: 50.00%"
    assert found["structural verify", "accuracy"] == 50 and found["steps 1", "accuracy"] == 50


@pytest.mark.parametrize(("row", "right"), list(zip(GQA_GOLD, RIGHT, strict=True)))
def test_conversion(row, right):
    assert (converted(row[2]) == row[0]) == bool(right)


def test_conversion_keeps_everything_but_dots_and_case():
    assert converted(" The Cups, 2!..") == " the cups, 2!" and converted("...") == ""


def test_ids_as_numbers_match_too(tmp_path):
    rows = write_gqa(tmp_path)
    path = tmp_path / "data" / "testdev_balanced_questions.json"
    gold = {str(int(key) + 100): value for key, value in json.loads(path.read_text()).items()}
    path.write_text(json.dumps(gold))
    rows = [{**row, "question_id": int(row["question_id"]) + 100} for row in rows]
    assert get("gqa").score(tmp_path, rows).headline.value == 100


def test_unbalanced_questions_do_not_count(root):
    rows = worked(root)
    path = root / "data" / "testdev_balanced_questions.json"
    gold = json.loads(path.read_text())
    gold["00"]["isBalanced"] = False
    path.write_text(json.dumps(gold))
    assert get("gqa").score(root, rows).headline.value == 40  # 2 of 5
    assert get("gqa").score(root, rows[1:]).missing == ()


def test_steps_leave_out_what_the_official_code_leaves_out():
    steps = [("select", "cup"), ("relate", "on"), ("query", "name"), ("choose name", "a|b"), ("exist", "?")]
    assert reasoning_steps({"semantic": [{"operation": o, "argument": a} for o, a in steps]}) == 2


def test_distribution_by_hand():
    # One group: gold yes 3, no 1; predicted yes 4: ((4-3)^2/3 + (0-1)^2/1) / 100.
    pairs = [("g", "yes", "yes")] * 3 + [("g", "no", "yes")]
    assert distribution(pairs) == pytest.approx((1 / 3 + 1) / 100)
    assert distribution([]) is None


def test_predictions_for_the_official_tool(root):
    path = get("gqa").export(root, worked(root), "run")[0]
    assert path == root / "data" / "testdev_balanced_predictions.json"
    content = json.loads(path.read_text())
    assert content[0] == {"questionId": "00", "prediction": "yes"} and len(content) == 6


def test_unavailable_numbers_are_said_to_be(root):
    assert "unavailable" in get("gqa").score(root, worked(root)).notes[0]
