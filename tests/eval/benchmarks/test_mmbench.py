"""MMBench: the card's worked example, prompts, both readings of answers against a slow one, the Excel file."""

import re

import pytest

from llava.errors import BadData
from llava.eval import data
from llava.eval.benchmarks import get
from llava.eval.benchmarks.base import Embedded
from llava.eval.benchmarks.mmbench import exact_letter, prefetched_letter
from llava.eval.prefetch import open_media
from tests.eval.small_sets import LETTER, write_mmbench, write_mmbench_cn

WORKED = ["B", "A", "C", "A", "A", "B. two", "The answer is two"]


@pytest.fixture
def root(tmp_path):
    write_mmbench(tmp_path / "mmbench")
    return tmp_path / "mmbench"


def worked(root):
    return [{**row, "text": text} for row, text in zip(write_mmbench(root), WORKED, strict=True)]


def test_worked_example(root):
    score = get("mmbench").score(root, worked(root))
    found = {metric.name: metric.value for metric in score.metrics if not metric.group}
    assert score.headline.value == pytest.approx(200 / 3)
    assert found["accuracy_exact"] == pytest.approx(100 / 3)
    assert found["row_accuracy"] == pytest.approx(600 / 7)
    assert found["base_row_accuracy"] == 100  # rows 1, 2, 3
    parts = {metric.group for metric in score.metrics if metric.group}
    assert parts == {"category colour", "l2-category look"}


def test_questions(root):
    questions = get("mmbench").questions(root)
    first, third = questions[0], questions[3]
    assert first.id == 1 and first.text == "Look twice.\nThen answer.\nWhich 1?\nA. red\nB. blue\nC. green"
    assert third.prompt == f"Which 2?\nA. cat\nB. dog\n{LETTER}"
    assert third.extra == {"round_id": 0, "options": ["cat", "dog"], "option_char": ["A", "B"]}
    # A short number instead of an image names the row that has it.
    assert isinstance(questions[1].image, Embedded) and questions[1].image.data == first.image.data
    assert open_media(None, questions[1]).size == (12, 8)


def test_the_chinese_prompt_and_its_two_places(tmp_path):
    benchmark = get("mmbench_cn")
    write_mmbench_cn(tmp_path / "mmbench")
    (tmp_path / "mmbench_cn").mkdir()
    dataset = data.locate(benchmark, None, tmp_path)
    assert dataset.kind == "full" and benchmark.questions(dataset.root)[0].prompt.endswith("\n请直接回答选项字母。")
    path = benchmark.export(dataset.root, write_mmbench_cn(tmp_path / "mmbench"), "ckpt")[0]
    assert path == tmp_path / "mmbench" / "answers_upload" / "mmbench_dev_cn_20231003" / "ckpt.xlsx"


def test_groups_stay_whole_in_a_limited_run(root):
    assert [q.id % 1_000_000 for q in get("mmbench").questions(root, limit=4)] in ([1] * 3 + [2] * 2,)


def test_groups_with_missing_rows_are_left_out(root):
    score = get("mmbench").score(root, worked(root)[:5])
    assert score.headline.value == 50 and "1 groups" in score.notes[-1] and score.missing == ("3", "1000003")


def slow_prefetch(text, options):
    """Written from the card, with regular expressions instead of tokens."""
    forms = ["X", "X.", "X,", "X:", "X)", "X).", "(X)", "(X).", ":X", ":X,", ":X.", ":X)", ":X)."]
    for form in forms:
        found = set()
        for letter in "ABCDE":
            if re.search(r"(?<!\S)" + re.escape(form.replace("X", letter)) + r"(?!\S)", text):
                found.add(letter)
        if len(found) == 1:
            letter = found.pop()
            if not (form == "X" and letter == "A" and len(re.findall(r"\S+", text)) > 3):
                return letter
    held = [letter for letter in options if options[letter].lower() in text.lower()]
    return held[0] if len(held) == 1 else None


def test_reading_against_a_slow_one():
    import random

    pieces = ["A", "B", "C", "E", "A.", "(B)", ":C", "B).", "the", "answer", "is", "red", "Blue", "\n", "A,", "D:"]
    options = {"A": "red", "B": "blue", "C": "dark red"}
    draw = random.Random(5)
    for _ in range(2000):
        text = " ".join(draw.choices(pieces, k=draw.randrange(6)))
        assert prefetched_letter(text, options) == slow_prefetch(text, options), text


@pytest.mark.parametrize(
    ("text", "official", "exact"),
    [
        ("A", "A", "A"),
        (" B \n", "B", "B"),
        ("A dog is red there", "A", None),  # the article is ignored, but only one option text occurs
        ("A or B", None, None),
        ("(C)", "C", None),
        ("E", "E", None),  # looked for, though never offered
        ("", None, None),
    ],
)
def test_readings(text, official, exact):
    options = {"A": "red", "B": "blue", "C": "green"}
    assert (prefetched_letter(text, options), exact_letter(text, options)) == (official, exact)


def test_upload(root):
    openpyxl = pytest.importorskip("openpyxl")
    rows = worked(root)
    rows[0]["text"] = "=SUM(A1)\x07"
    path = get("mmbench").export(root, rows, "ckpt")[0]
    assert path == root / "answers_upload" / "mmbench_dev_20230712" / "ckpt.xlsx"
    table = list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))
    assert table[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert table[1] == (1, "Which 1?", "red", "blue", "green", None, "=SUM(A1)", "B", "dev")
    assert len(table) == 8
    # The upload is an answers file too.
    rows = get("mmbench").foreign_answers(path)
    assert rows[1] == {"question_id": 1000001, "text": "A"}
    assert get("mmbench").score(root, rows).headline.value == pytest.approx(100 / 3)


def test_options_called_none_are_missing(root):
    path = root / "mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace("\tgreen\t\t", "\tNone\tgreen\t"))
    assert get("mmbench").questions(root)[0].extra["options"] == ["red", "blue"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("index\t", "idx\t", "lacks the columns index"),
        ("\n2\t", "\ntwo\t", "'two' is not a whole number"),
        ("\tB\tcolour", "\tE\tcolour", "answer 'E'"),
        ("\t2\tx\t", "\t7\tx\t", "row 1000002 names row 7"),
    ],
)
def test_damaged_tables(root, old, new, words):
    path = root / "mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadData, match=words):
        get("mmbench").questions(root)


def test_a_table_without_answers_is_for_the_server(root):
    path = root / "mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace("\tanswer\t", "\tgold\t"))
    score = get("mmbench").score(root, worked_rows(root))
    assert score.headline.value is None and "upload" in score.notes[0]


def worked_rows(root):
    ids = [question.id for question in get("mmbench").questions(root)]
    return [{"question_id": key, "text": text} for key, text in zip(ids, WORKED, strict=True)]
