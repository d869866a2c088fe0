"""Which words of captions are not true: cases small enough to judge by eye."""

import pytest

from llava.report.figures.captions import Truth, judge, lines

TRUTH = Truth(("red circle", "blue square", "red circle"), "AB")


def wrong(caption, truth=TRUTH):
    return [text for text, untrue in judge(caption, truth).pieces if untrue]


@pytest.mark.parametrize(
    ("caption", "untrue"),
    [
        ("a red circle, a blue square, a red circle, a sign that says AB.", []),
        ("A Red Circle, a sign that says ab.", []),
        ("a red circle, a red circle, a red circle.", ["red circle"]),  # one too many
        ("a red square, a blue circle.", ["red square", "blue circle"]),  # neither colour nor shape alone is enough
        ("a sign that says AC, a blue square.", ["AC"]),
        ("a dark house, a circle.", []),  # nothing that is judged
    ],
)
def test_untrue_words(caption, untrue):
    assert wrong(caption) == untrue


def test_without_a_sign_the_whole_sign_is_untrue():
    assert wrong("a sign that says AB", Truth(("red circle",))) == ["sign that says AB"]


def test_counts():
    judged = judge("a red circle, a green star, a sign that says X1.", TRUTH)
    assert (judged.claims, judged.untrue, judged.left_out) == (3, 2, 3)  # left out: circle, square, the sign's text


def test_pieces_are_the_caption_and_lines_break_between_words():
    caption = "a red circle, a green star, a blue square."
    pieces = judge(caption, TRUTH).pieces
    assert "".join(text for text, _ in pieces) == caption
    rows = lines(pieces, 16)
    told = [" ".join("".join(text for text, _ in word) for word in row) for row in rows]
    assert told == ["a red circle, a", "green star, a", "blue square."]
    assert [text for row in rows for word in row for text, untrue in word if untrue] == ["green", "star"]
