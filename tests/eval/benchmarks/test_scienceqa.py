"""ScienceQA: the card's worked example, which questions are asked, the official output files."""

import json

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from llava.eval.benchmarks.scienceqa import choice_index, parsed
from tests.eval.small_sets import LETTER, write_scienceqa

WORKED = [
    ("A", "A"),
    ("B. magnet", "B"),
    ("The answer is C.", "C"),
    ("A.", "FAILED"),
    ("The answer is A. The answer is B.", "FAILED"),
    ("b", "FAILED"),
    ("C", "C"),
]


def worked(root):
    return [{**row, "text": text} for row, (text, _) in zip(write_scienceqa(root), WORKED, strict=True)]


@pytest.mark.parametrize(("text", "letter"), WORKED)
def test_answers_are_read_as_the_official_scorer_reads_them(text, letter):
    assert parsed(text) == letter


def test_a_letter_beyond_the_choices_is_invalid():
    assert choice_index("C", 2) == choice_index("FAILED", 2) == choice_index("Z", 5) == -1 and choice_index("C", 3) == 2


def test_worked_example(tmp_path):
    score = get("scienceqa").score(tmp_path, worked(tmp_path))
    assert score.printout == ("Total: 7, Correct: 3, Accuracy: 42.86%, IMG-Accuracy: 40.00%",)
    assert score.headline.name == "image_accuracy" and score.headline.value == 40


def test_without_text_only_answers_the_image_accuracy_stays(tmp_path):
    rows = [row for row in worked(tmp_path) if "<image>" in row["prompt"]]
    score = get("scienceqa").score(tmp_path, rows)
    assert score.headline.value == 40 and (score.samples, score.expected) == (5, 5)
    assert "2 questions without an image" in score.notes[0]
    assert "Accuracy: 28.57%" in score.printout[0]


def test_without_stored_prompts_the_problems_say_what_has_an_image(tmp_path):
    rows = [{"question_id": row["question_id"], "text": row["text"]} for row in worked(tmp_path)]
    assert get("scienceqa").score(tmp_path, rows).headline.value == 40


def test_only_questions_with_an_image_are_asked(tmp_path):
    write_scienceqa(tmp_path)
    questions = get("scienceqa").questions(tmp_path)
    assert [question.id for question in questions] == ["1", "2", "4", "5", "6"]
    assert questions[1].prompt == f"Which 2?\nA. aa\nB. bb\n{LETTER}"
    assert questions[1].text == f"<image>\n{questions[1].prompt}"


def test_output_files(tmp_path):
    output, result = get("scienceqa").export(tmp_path, worked(tmp_path), "ckpt")
    assert (output.name, result.name) == ("ckpt_output.jsonl", "ckpt_result.json")
    parts, summary = json.loads(output.read_text()), json.loads(result.read_text())
    assert [item["question_id"] for item in parts["correct"]] == ["1", "2", "3"] and len(parts["incorrect"]) == 4
    assert summary["correct"] == 3 and summary["count"] == 7 and summary["acc"] == pytest.approx(42.857, abs=1e-3)
    assert summary["results"]["7"] == -1 and summary["outputs"]["6"] == "b"


def test_a_split_that_names_unknown_problems(tmp_path):
    rows = worked(tmp_path)
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1", "1000"]}))
    with pytest.raises(BadData, match="1000"):
        get("scienceqa").score(tmp_path, rows)
