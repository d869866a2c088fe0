"""OCRBench: the card's worked example, the 1000 real items, the official results file."""

import json

import pytest

from llava.eval.benchmarks import get
from llava.eval.benchmarks.ocrbench import asked, identity, matches
from tests.eval.small_data import SHARED, SINGLE_WORD
from tests.eval.small_sets import OCRBENCH, write_ocrbench


@pytest.mark.parametrize(("dataset", "answers", "prediction", "result", "kind"), OCRBENCH)
def test_matching_rule(dataset, answers, prediction, result, kind):
    assert matches(dataset, answers, prediction) == bool(result)


def worked(root):
    return [{**row, "text": case[2]} for row, case in zip(write_ocrbench(root), OCRBENCH, strict=True)]


def test_worked_example_and_results_file(tmp_path):
    rows = worked(tmp_path)
    score = get("ocrbench").score(tmp_path, rows)
    assert score.headline.value == 3 and score.headline.unit == "points"
    assert "Final Score (total 6): 3" in score.printout and "Text Recognition (total 2): 1" in score.printout
    path = get("ocrbench").export(tmp_path, rows, "ckpt")[0]
    content = json.loads(path.read_text())
    assert path.name == "ckpt_OCRBench.json" and [item["result"] for item in content] == [1, 0, 1, 1, 0, 0]
    # That file is an answers file too, also when some items are not answered yet.
    assert get("ocrbench").score(tmp_path, get("ocrbench").foreign_answers(path)).headline.value == 3
    path.write_text(json.dumps([{k: v for k, v in content[0].items() if k != "predict"}, *content[1:]]))
    score = get("ocrbench").score(tmp_path, get("ocrbench").foreign_answers(path))
    assert (score.headline.value, score.samples, score.missing) == (2, 5, ("IIIT5K/0",))


def test_prompts_of_the_families(tmp_path):
    write_ocrbench(tmp_path)
    assert get("ocrbench").questions(tmp_path, "llava")[0].prompt == f"what is written in 0?\n{SINGLE_WORD}"
    assert get("ocrbench").questions(tmp_path, "qwen2_vl")[0].prompt == "what is written in 0?"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the official annotations are not beside the repository")
def test_the_real_items(tmp_path):
    (tmp_path / "OCRBench").mkdir()
    path = tmp_path / "OCRBench" / "OCRBench.json"
    path.write_bytes((SHARED / "data" / "OCRBench.json").read_bytes())
    items = json.loads(path.read_text())
    golds = [item["answers"] if isinstance(item["answers"], str) else item["answers"][0] for item in items]

    def points(texts):
        rows = [
            {"question_id": identity(item), "prompt": asked(item), "text": text}
            for item, text in zip(items, texts, strict=True)
        ]
        return get("ocrbench").score(tmp_path, rows)

    assert points(golds).headline.value == 1000
    shouted = points([f"The answer is {gold.upper()}!" for gold in golds])
    found = {metric.group: metric.value for metric in shouted.metrics if metric.group}
    assert shouted.headline.value == 903 and found["Handwritten Mathematical Expression Recognition"] == 3
    assert sum(metric.samples for metric in shouted.metrics if metric.group) == 1000
