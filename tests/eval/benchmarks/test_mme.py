"""MME: the official reading of answers, the worked example, both layouts, conversion to the tool's files."""

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from llava.eval.benchmarks.mme import Line, answer_label, category_score, official_question
from tests.eval.small_data import SINGLE_WORD, answers_to, read_lines, write_mme


@pytest.fixture
def root(tmp_path):
    return write_mme(tmp_path / "MME")


def answers(root, texts=None):
    questions = read_lines(root / "llava_mme.jsonl")
    return answers_to(questions, texts or ["Yes", "No"] * (len(questions) // 2))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("Yes, it is", "yes"),
        ("Yes.", "yes"),
        ("Not sure", "no"),
        ("None", "no"),
        ("north", "no"),
        ("I think yes", "other"),
        ("", "other"),
    ],
)
def test_an_answer_is_read_by_its_first_four_characters(text, label):
    assert answer_label(text) == label


def test_worked_example():
    given = [("1", "Yes", "Yes"), ("1", "No", "No"), ("2", "Yes", "Yes, it is"), ("2", "No", "Not sure")]
    given += [("3", "Yes", "I think yes"), ("3", "No", "No")]
    accuracy, both = category_score([Line(f"{image}.txt", "?", gold, answer) for image, gold, answer in given])
    assert accuracy == pytest.approx(100 * 5 / 6) and both == pytest.approx(100 * 2 / 3)
    assert accuracy + both == pytest.approx(150.0)


@pytest.mark.parametrize("inner", ["", "MME_Benchmark"])
def test_gold_answers_give_200_points_a_sub_task_in_both_layouts(tmp_path, inner):
    root = write_mme(tmp_path / "MME", inner=inner)
    assert all(question.image.is_file() for question in get("mme").questions(root))
    assert all(path.is_file() for path in get("mme").label_files(root, get("mme").questions(root)))
    score = get("mme").score(root, answers(root))
    found = {(m.group, m.name): m.value for m in score.metrics}
    assert score.headline.value == 600 and found["", "perception"] == 400 and found["", "cognition"] == 200
    assert "existence" in score.notes[0] and "text_translation" in score.notes[0] and "artwork" not in score.notes[0]
    assert "600 points" in score.notes[0]


def test_half_right_pairs(root):
    score = get("mme").score(root, answers(root, ["Yes", "Yes"] * 6))
    found = {(m.group, m.name): m.value for m in score.metrics}
    assert found["count", "accuracy"] == 50 and found["count", "accuracy_plus"] == 0 and score.headline.value == 150


def test_official_wording_is_restored():
    gold = {"Are there two cups? Please answer yes or no.": "Yes", "Is it red?  Please answer yes or no.": "No"}
    assert (
        official_question(f"Are there two cups?\n{SINGLE_WORD}", gold) == "Are there two cups? Please answer yes or no."
    )
    assert official_question(f"Is it red?\n{SINGLE_WORD}", gold) == "Is it red?  Please answer yes or no."
    assert official_question(f"Is it blue?\n{SINGLE_WORD}", gold) is None


def test_files_for_the_official_tool(root):
    rows = answers(root)
    rows[0]["text"] = "Yes\nindeed\tso"
    written = get("mme").export(root, rows, "model-dart")
    assert written[0] == root / "eval_tool" / "answers" / "model-dart" / "count.txt"
    assert {path.stem for path in written} == {"count", "artwork", "code_reasoning"}
    lines = written[0].read_text().splitlines()
    assert lines[0] == "0000.txt\tIs it count 0?  Please answer yes or no.\tYes\tYes indeed so"
    assert len(lines) == 4


def test_limit_keeps_both_questions_of_an_image(root):
    chosen = get("mme").questions(root, limit=5)
    assert [q.category for q in chosen] == ["count", "count", "artwork", "artwork", "code_reasoning", "code_reasoning"]
    assert chosen[0].image == chosen[1].image


def test_shuffled_answers_are_refused(root):
    rows = answers(root)
    with pytest.raises(BadData, match="out of order"):
        get("mme").score(root, [rows[2], rows[1], rows[0], *rows[3:]])


def test_an_odd_number_of_answers_is_refused(root):
    with pytest.raises(BadData, match="mixed up|pairs"):
        get("mme").score(root, answers(root)[1:])
    with pytest.raises(BadData, match="1 answers cannot be grouped"):
        category_score([Line("a.txt", "?", "Yes", "Yes")])


def test_malformed_gold_is_reported_with_its_line(root):
    path = root / "MME_Benchmark_release_version" / "count" / "0001.txt"
    path.write_text("Is it count 1?  Please answer yes or no.\tYes\nno tab here\n")
    with pytest.raises(BadData, match=r"0001.txt(.|\n)*line 2"):
        get("mme").score(root, answers(root))


def test_a_question_that_is_not_in_the_gold_file_is_reported(root):
    path = root / "MME_Benchmark_release_version" / "count" / "0001.txt"
    path.write_text(path.read_text().replace("something else", "anything else"))
    with pytest.raises(BadData, match="answer 4"):
        get("mme").score(root, answers(root))
