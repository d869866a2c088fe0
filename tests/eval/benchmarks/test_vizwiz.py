"""VizWiz: the card's worked example on val, the upload of test."""

import json

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from tests.eval.small_sets import VIZWIZ_WORKED, write_vizwiz, write_vizwiz_val


def worked(rows):
    return [{**row, "text": text} for row, (text, _) in zip(rows, VIZWIZ_WORKED, strict=True)]


def test_worked_example(tmp_path):
    score = get("vizwiz_val").score(tmp_path, worked(write_vizwiz_val(tmp_path)))
    assert score.headline.value == pytest.approx(62.5)
    assert score.printout[:2] == ("Samples: 4", "Accuracy (val): 62.50%")
    assert "1 of 4 answers are 'unanswerable'" in score.notes[0]


def test_test_has_no_local_score_unless_there_are_labels(tmp_path):
    rows = worked(write_vizwiz(tmp_path))
    assert get("vizwiz").score(tmp_path, rows).headline.value is None
    write_vizwiz_val(tmp_path)
    items = json.loads((tmp_path / "val.json").read_text())
    labelled = [{**item, "image": item["image"].replace("val", "test")} for item in items]
    (tmp_path / "test.json").write_text(json.dumps(labelled))
    assert get("vizwiz").score(tmp_path, rows).headline.value == pytest.approx(62.5)


def test_upload_is_normalised_and_in_the_order_of_the_questions(tmp_path):
    rows = write_vizwiz(tmp_path)
    rows[0]["text"], rows[1]["text"] = "Unanswerable", "09/05/2015"
    path = get("vizwiz").export(tmp_path, rows[::-1], "ckpt")[0]
    content = json.loads(path.read_text())
    assert path == tmp_path / "answers_upload" / "ckpt.json" and len(content) == 4
    assert content[:2] == [
        {"image": "VizWiz_test_00000000.jpg", "answer": "unanswerable"},
        {"image": "VizWiz_test_00000001.jpg", "answer": "09 05 2015"},
    ]
    path.write_text(json.dumps(content[::-1]))
    assert "instead of 'VizWiz_test_00000000.jpg'" in get("vizwiz").validate_upload(tmp_path, path)[0]


def test_annotations_of_other_images(tmp_path):
    rows = write_vizwiz_val(tmp_path)
    items = json.loads((tmp_path / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps(items[1:]))
    with pytest.raises(BadData, match="VizWiz_val_00000000.jpg"):
        get("vizwiz_val").score(tmp_path, rows)
