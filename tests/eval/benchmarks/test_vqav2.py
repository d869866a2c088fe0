"""VQAv2: the official rule on the card's worked example, the upload of all test questions."""

import json

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from llava.eval.normaliser import official_accuracy
from tests.eval.small_sets import VQAV2_ANSWERS, VQAV2_WORKED, write_vqav2, write_vqav2_val


def worked(rows):
    return [{**row, "text": text} for row, (text, _) in zip(rows, VQAV2_WORKED, strict=True)]


@pytest.mark.parametrize(("case", "answers"), list(zip(VQAV2_WORKED, VQAV2_ANSWERS, strict=True)))
def test_official_rule(case, answers):
    assert 100 * official_accuracy(case[0], answers) == pytest.approx(case[1])


def test_worked_example(tmp_path):
    score = get("vqav2_val").score(tmp_path, worked(write_vqav2_val(tmp_path)))
    found = {(metric.group, metric.name): metric.value for metric in score.metrics}
    assert found["", "accuracy_raw"] == pytest.approx(63.33, abs=0.005)
    # LLaVA normalises before it uploads: `Yes` becomes `yes` and matches ten of ten.
    assert found["", "accuracy"] == pytest.approx(80.0) and "63.33 %" in score.notes[0]
    assert found["answer type yes/no", "accuracy"] == 100 and found["answer type other", "accuracy"] == 60
    assert "val2014" in score.printout[0]


def test_test_dev_has_no_local_score(tmp_path):
    score = get("vqav2").score(tmp_path, write_vqav2(tmp_path))
    assert score.headline.value is None and "EvalAI" in score.notes[0]


def test_a_set_of_ones_own_with_labels_is_scored(tmp_path):
    rows = write_vqav2(tmp_path)
    write_vqav2_val(tmp_path)
    (tmp_path / "v2_mscoco_val2014_annotations.json").rename(tmp_path / "v2_mscoco_test-dev2015_annotations.json")
    assert get("vqav2").score(tmp_path, rows).headline.value == 100


def test_upload_holds_every_test_question_in_order(tmp_path):
    rows = write_vqav2(tmp_path)
    rows[0]["text"] = "The Two dogs."
    path = get("vqav2").export(tmp_path, rows[::-1], "ckpt")[0]
    assert path == tmp_path / "answers_upload" / "llava_vqav2_mscoco_test-dev2015" / "ckpt.json"
    content = json.loads(path.read_text())
    assert [entry["question_id"] for entry in content] == [0, 1, 2, *(262144000 + n for n in range(6))]
    assert [entry["answer"] for entry in content[:4]] == ["", "", "", "2 dogs"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries[:-1], "8 entries instead of 9"),
        (lambda entries: entries[::-1], "question_id"),
        (
            lambda entries: [{**entry, "question_id": str(entry["question_id"])} for entry in entries],
            "'0' instead of 0",
        ),
        (lambda entries: [{**entry, "answer": 2} for entry in entries], "not text"),
        (lambda entries: [{**entry, "more": 2} for entry in entries], "not an object with the fields"),
        (lambda entries: [{**entry, "answer": ""} for entry in entries], "none of the 6 questions"),
    ],
)
def test_uploads_the_server_would_refuse(tmp_path, change, words):
    path = get("vqav2").export(tmp_path, write_vqav2(tmp_path), "ckpt")[0]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert any(words in line for line in get("vqav2").validate_upload(tmp_path, path))


def test_annotations_that_lack_a_question(tmp_path):
    rows = write_vqav2_val(tmp_path)
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"annotations": content["annotations"][1:]}))
    with pytest.raises(BadData, match="262144000"):
        get("vqav2_val").score(tmp_path, rows)
