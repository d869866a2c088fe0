"""Both normalisers and both accuracies against slow ones, written step by step from the specification."""

import pytest

from llava.eval.contractions import CONTRACTIONS
from llava.eval.normaliser import NUMBER_WORDS, normalise, normalise_official, official_accuracy, soft_accuracy

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

MARKS = ';/[]"{}()=+\\_->' + "<@`,?!"
WORDS = [
    "a",
    "the",
    "two",
    "None",
    "dont",
    "Id've",
    "somebody'd",
    "it's",
    "U.S.A.",
    "3.5",
    "1,000",
    "9:30",
    "x.",
    "TEN",
]
PIECES = [*WORDS, *MARKS, " ", "\n", "\t", "'", "'s", ".", "..", ",", ",,", "7", "é", "1,2", " - ", "$", "%"]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20)
few = hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)


def grouped(text, official):
    """Whether a comma stands between digits: any number of commas, or exactly one in the official variant."""
    for start, character in enumerate(text):
        if character.isdecimal():
            end = start + 1
            while end < len(text) and text[end] == ",":
                end += 1
            commas = end - start - 1
            if end < len(text) and text[end].isdecimal() and (commas == 1 if official else commas >= 1):
                return True
    return False


def slow(answer, official):
    text = answer
    if not official:
        text = text.lower()
        text = "".join(c for c in text if c not in ",?")
        text = " 's".join(text.split("'s")).strip()
    text = "".join(" " if c in "\n\t" else c for c in text).strip()
    out = []
    delete_all = grouped(text, official)
    beside = {mark for mark in MARKS if mark + " " in text or " " + mark in text}
    for character in text:
        if character in MARKS:
            if not (delete_all or character in beside):
                out.append(" ")
        else:
            out.append(character)
    kept, deleted = [], 0
    for place, character in enumerate(out):
        followed = place + 1 < len(out) and out[place + 1].isdecimal()
        if character == "." and not followed and deleted < 32:
            deleted += 1
        else:
            kept.append(character)
    words = []
    for word in "".join(kept).lower().split():
        word = NUMBER_WORDS.get(word, word)
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word, word))
    return " ".join(words)


@few
@hypothesis.given(texts)
def test_evalai_variant(text):
    assert normalise(text) == slow(text, official=False)


@few
@hypothesis.given(texts)
def test_official_variant(text):
    assert normalise_official(text) == slow(text, official=True)


short = st.sampled_from(["two", "2", "Two", "the 2", "2.", "no", "No\n", ""])


def leave_one_out(prediction, answers):
    credits = []
    for place in range(len(answers)):
        others = answers[:place] + answers[place + 1 :]
        credits.append(min(1, sum(other == prediction for other in others) / 3))
    return sum(credits) / len(answers)


@few
@hypothesis.given(short, st.lists(short, min_size=10, max_size=10) | short.map(lambda word: [word] * 10))
def test_both_accuracies(prediction, answers):
    expected = leave_one_out(slow(prediction, False), [slow(answer, False) for answer in answers])
    assert soft_accuracy(prediction, answers) == pytest.approx(expected)

    def clean(text):
        return text.replace("\n", " ").strip()

    golds, wanted = [clean(answer) for answer in answers], clean(prediction)
    if any(gold != golds[0] for gold in golds):
        golds, wanted = [slow(gold, True) for gold in golds], slow(wanted, True)
    assert official_accuracy(prediction, answers) == pytest.approx(leave_one_out(wanted, golds))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1,000", "1000"), ("1,,000", "1 000"), ("What's up?", "what's up"), ("The Two, dogs.", "2 dogs")],
)
def test_official_variant_by_hand(given, expected):
    assert normalise_official(given) == expected
