"""The EvalAI normaliser: the reference implementation's outputs, the official table, the soft accuracy."""

import pytest

from llava.eval.contractions import CONTRACTIONS
from llava.eval.normaliser import normalise, soft_accuracy, without_punctuation
from tests.eval.small_data import SHARED

VECTORS = [
    ("The Two dogs.", "2 dogs"),
    ("$1,000", "$1000"),
    ("9:30 a.m.", "9:30 am"),
    ("1,000-2,000", "1000 2000"),
    ("09/05/2015", "09 05 2015"),
    ("coca-cola", "coca cola"),
    ("7 - eleven", "7 eleven"),
    ("U.S.A.", "usa"),
    ("dont", "don't"),
    ("it's", "it 's"),
    ("mcdonald's", "mcdonald 's"),
    ("3.5", "3.5"),
    ("5.0.", "5.0"),
    ("a.b.c", "abc"),
    ("the", ""),
    ("None of them", "0 of them"),
    ("O'Clock", "o'clock"),
    ("rock & roll", "rock & roll"),
    ("x / y", "x y"),
    ("x/y", "x y"),
    ("twelve", "twelve"),
    ("somebody'd", "somebodyd"),
]


@pytest.mark.parametrize(("given", "expected"), VECTORS)
def test_reference_outputs(given, expected):
    assert normalise(given) == expected


def test_line_breaks_and_tabs_become_spaces():
    assert normalise(" New\nYork\tCity ") == "new york city"


def test_at_most_32_full_stops_are_deleted():
    assert without_punctuation("x." * 40) == "x" * 32 + "x." * 8


def test_punctuation_tests_look_at_the_text_that_entered_the_step():
    # The dash stands beside a space once, so every dash is deleted instead of becoming a space.
    assert normalise("a-b c- d") == "ab c d"


def test_number_words_become_digits_before_contractions_and_articles_go():
    assert normalise("an apple, ten theres") == "apple 10 there's"


def test_contraction_table_has_120_entries():
    assert len(CONTRACTIONS) == 120
    assert CONTRACTIONS["Im"] == "I'm" and CONTRACTIONS["somebody'd"] == "somebodyd"
    assert CONTRACTIONS["'ow'sat"] == "'ow's'at" and "its" not in CONTRACTIONS


@pytest.mark.skipif(not SHARED.is_dir(), reason="the specification is not beside the repository")
def test_contraction_table_is_the_official_one():
    card = (SHARED / "spec" / "benchmarks" / "vqa_normaliser.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("aint>"))
    assert dict(pair.split(">") for pair in line.split(" | ")) == CONTRACTIONS


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_is_the_mean_over_ten_leave_one_out_credits(matches, expected):
    assert soft_accuracy("Nokia", ["nokia"] * matches + ["other"] * (10 - matches)) == pytest.approx(expected)
