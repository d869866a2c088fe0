"""POPE: the official reading of answers, the card's worked example, the published answers of LLaVA-1.5-13B."""

import json
import shutil

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from llava.eval.benchmarks.pope import Counts, says_yes
from tests.eval.small_data import SHARED, answers_to, read_lines, write_lines, write_pope

WORKED = [
    ("yes", "Yes", True),
    ("no", "No", False),
    ("no", "There is no dog.", False),
    ("yes", "Nothing visible.", True),
    ("no", "NO", True),
    ("yes", "Yes. But I am not sure.", True),
    ("no", "no, it isn't", False),
    ("yes", "No", False),
]


@pytest.fixture
def root(tmp_path):
    return write_pope(tmp_path / "pope")


def answers(root, text):
    questions = read_lines(root / "llava_pope_test.jsonl")
    return answers_to(questions, [text(number, question) for number, question in enumerate(questions)])


def gold(number, question):
    return "Yes" if "dog" in question["text"] else "No"


@pytest.mark.parametrize(("label", "text", "parsed"), WORKED)
def test_answers_are_read_as_the_official_scorer_reads_them(label, text, parsed):
    assert says_yes(text) is parsed


def test_worked_example():
    counts = Counts.of([says_yes(text) for _, text, _ in WORKED], [label == "yes" for label, _, _ in WORKED])
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == (3, 1, 3, 1)
    assert counts.accuracy == counts.precision == counts.recall == counts.f1 == 0.75
    assert counts.yes_ratio == 0.5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published answers are not beside the repository")
def test_published_answers_of_llava_13b(tmp_path):
    (tmp_path / "coco").mkdir()
    for file in (SHARED / "data" / "pope").iterdir():
        shutil.copy(file, tmp_path / "coco" if file.name.startswith("coco") else tmp_path)
    score = get("pope").score(tmp_path, read_lines(tmp_path / "llava-v1.5-13b.jsonl"))
    found = {(m.group, m.name): m.value for m in score.metrics}
    assert score.headline.value == pytest.approx(85.95, abs=0.005)
    for split, f1, accuracy in (("adversarial", 84.46, 85.50), ("random", 87.14, 88.01), ("popular", 86.25, 87.43)):
        assert found[split, "f1"] == pytest.approx(f1, abs=0.005)
        assert found[split, "accuracy"] == pytest.approx(accuracy, abs=0.005)
    assert score.samples == score.expected == 8910 and not score.notes


def test_gold_answers_score_100(root):
    score = get("pope").score(root, answers(root, gold))
    assert score.headline.value == 100
    assert "Category: adversarial, # samples: 6" in score.printout
    assert any(line.startswith("1.000, 1.000, 1.000, 1.000, 0.500") for line in score.printout)


def test_headline_is_the_mean_of_three_f1_values_not_a_pooled_one(root):
    always_yes_in_one_split = answers(root, lambda n, q: "Yes" if q["category"] == "random" else gold(n, q))
    assert get("pope").score(root, always_yes_in_one_split).headline.value == pytest.approx(100 * (1 + 1 + 2 / 3) / 3)


def test_never_yes_gives_zero_and_says_so(root):
    score = get("pope").score(root, answers(root, lambda n, q: "No"))
    assert score.headline.value == 0
    assert sum("set to 0" in note for note in score.notes) == 3


def test_labels_are_paired_by_position(root):
    # Other ids in the label files change nothing: the official scorer does not look at them.
    for file in (root / "coco").iterdir():
        write_lines(file, [{**row, "question_id": 7} for row in read_lines(file)])
    assert get("pope").score(root, answers(root, gold)).headline.value == 100


def test_a_limited_run_keeps_the_pairing(root):
    chosen = get("pope").questions(root, limit=7)
    assert [q.category for q in chosen].count("adversarial") == 3 and len(chosen) == 7
    rows = answers(root, gold)
    by_id = {row["question_id"]: row for row in rows}
    score = get("pope").score(root, [by_id[q.id] for q in chosen])
    assert score.headline.value == 100 and (score.samples, score.expected) == (7, 18)


def test_absent_split_is_named(root):
    rows = [row for row in answers(root, gold) if row["question_id"] < 20_000_000]
    score = get("pope").score(root, rows)
    assert score.headline.value == 100 and "popular" in score.notes[0]


def test_wrong_label_files_are_refused(root):
    file = root / "coco" / "coco_pope_random.json"
    write_lines(file, read_lines(file) * 2)
    with pytest.raises(BadData, match=r"12 labels.*6 questions.*e3e3926"):
        get("pope").score(root, answers(root, gold))


def test_labels_about_other_images_are_noted(root):
    file = root / "coco" / "coco_pope_random.json"
    write_lines(file, [{**row, "image": "other.jpg"} for row in read_lines(file)])
    assert "6 labels" in get("pope").score(root, answers(root, gold)).notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows + rows[:1], "more than once"),
        (lambda rows: rows[::-1], "out of order"),
        (lambda rows: [{**rows[0], "question_id": "count/1.jpg"}], "no question has the id"),
    ],
)
def test_answers_that_do_not_fit_are_refused(root, change, words):
    with pytest.raises(BadData, match=words):
        get("pope").score(root, change(answers(root, gold)))


def test_malformed_question_rows_are_listed_with_their_lines(root):
    file = root / "llava_pope_test.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = "{not json"
    lines[3] = json.dumps({"question_id": True, "image": "x.jpg"})
    file.write_text("\n".join(lines))
    with pytest.raises(BadData) as caught:
        get("pope").questions(root)
    message = str(caught.value)
    assert "llava_pope_test.jsonl" in message and "line 2" in message and "line 4" in message
    assert "'text' is missing" in message and "question_id" in message


def test_a_malformed_label_is_reported(root):
    file = root / "coco" / "coco_pope_random.json"
    rows = read_lines(file)
    write_lines(file, [{**rows[0], "label": "maybe"}, *rows[1:]])
    with pytest.raises(BadData, match="row 1.*maybe"):
        get("pope").score(root, answers(root, gold))


def test_unknown_category_is_reported(root):
    file = root / "llava_pope_test.jsonl"
    rows = read_lines(file)
    write_lines(file, [{**rows[0], "category": "easy"}, *rows[1:]])
    with pytest.raises(BadData, match="easy"):
        get("pope").score(root, answers(root, gold))
