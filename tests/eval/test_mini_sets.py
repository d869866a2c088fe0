"""The small sets that come along: official formats, nothing missing, gold answers give the maximum."""

import json

import pytest

from llava.eval import benchmarks, data
from llava.eval.benchmarks import files, mmbench_table

HOME = data.data_home()
NAMES = [
    name
    for name in benchmarks.names()
    if benchmarks.get(name).question_path(HOME / benchmarks.get(name).folder / "mini").is_file()
]


def gold_answers(name, root, questions):
    """The answers in the label files, read without the scorers."""
    if name == "gqa":
        gold = json.loads((root / "data" / "testdev_balanced_questions.json").read_text())
        return [gold[q.id]["answer"] for q in questions]
    if name.startswith("mmbench"):
        return [line["answer"] for line in mmbench_table.read_table(benchmarks.get(name).question_path(root), ())]
    if name == "scienceqa":
        problems = json.loads((root / "problems.json").read_text())
        return ["ABCDE"[problems[q.id]["answer"]] for q in questions]
    if name == "vqav2":
        content = json.loads((root / "v2_mscoco_test-dev2015_annotations.json").read_text())
        return [item["multiple_choice_answer"] for item in content["annotations"]]
    if name == "vizwiz":
        items = {item["image"]: item for item in json.loads((root / "test.json").read_text())}
        given = [[a["answer"] for a in items[q.image_name]["answers"]] for q in questions]
        return [max(set(answers), key=answers.count) for answers in given]
    if name == "ocrbench":
        golds = [item["answers"] for item in json.loads((root / "OCRBench" / "OCRBench.json").read_text())]
        return [gold if isinstance(gold, str) else gold[0] for gold in golds]
    if name == "seed_bench":
        return [item["answer"] for item in json.loads((root / "SEED-Bench.json").read_text())["questions"]]
    if name.endswith("_qa"):
        gold = {item["question_id"]: item["answer"] for item in json.loads((root / "test_a.json").read_text())}
        return [gold[q.id] for q in questions]
    return None


@pytest.mark.skipif(not NAMES, reason="the small sets are not beside the package")
@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_give_the_maximum(name):
    benchmark = benchmarks.get(name)
    root = HOME / benchmark.folder / "mini"
    questions = benchmark.questions(root)
    assert data.missing(data.DataSet(benchmark, root, "mini"), questions) == []
    texts = gold_answers(name, root, questions)
    if texts is None:
        return
    rows = [{"question_id": q.id, "prompt": q.text, "text": t} for q, t in zip(questions, texts, strict=True)]
    score = benchmark.score(root, rows)
    assert score.headline.value == pytest.approx(len(rows) if name == "ocrbench" else 100)
    assert score.samples == score.expected == len(questions)


def test_together_they_are_small():
    folders = [HOME / benchmarks.get(name).folder / "mini" for name in NAMES]
    paths = [path for folder in dict.fromkeys(folders) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) <= 15 * 2**20
    assert files.missing_paths(folders) == []
