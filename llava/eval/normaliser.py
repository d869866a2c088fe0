"""Answer normalisers and soft accuracies of the VQA family: the EvalAI variant and VQAv2's own.

Source: the EvalAI answer processor of TextVQA's official evaluation (LLaVA uses it for TextVQA and for the files it
uploads), and `vqaEval.py` of VQA v2. Oddities are kept on purpose: they move scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from llava.eval.contractions import CONTRACTIONS

NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")
COMMA_BETWEEN_DIGITS = re.compile(r"(?<=\d),+(?=\d)")
OFFICIAL_COMMA_BETWEEN_DIGITS = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
MAX_FULL_STOPS = 32
"""The official code passes a regular-expression flag where `re.sub` takes the count; its value is 32."""


def split_off(text: str) -> str:
    """Lower-case, delete every `,` and `?`, set `'s` apart (step 1; EvalAI only)."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def without_line_breaks(text: str) -> str:
    """Turn line breaks and tabs into spaces (step 2)."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_punctuation(text: str, grouped_number: re.Pattern[str] = COMMA_BETWEEN_DIGITS) -> str:
    """Delete or blank the 21 punctuation characters and delete full stops that no digit follows (step 3).

    Every test looks at the text that entered the step, never at the copy being changed, as in the official code.
    """
    changed = text
    has_grouped_number = grouped_number.search(text) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        changed = changed.replace(mark, "" if beside_space or has_grouped_number else " ")
    return FULL_STOP.sub("", changed, count=MAX_FULL_STOPS)


def with_canonical_words(text: str) -> str:
    """Map number words, drop articles, restore contractions, join with single spaces (step 4)."""
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


@lru_cache(maxsize=65536)
def normalise(answer: str) -> str:
    """Return the answer in the form in which the EvalAI evaluation compares it."""
    return with_canonical_words(without_punctuation(without_line_breaks(split_off(answer))))


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the VQA soft accuracy in [0, 1] of a prediction against the human answers (officially ten).

    Each answer in turn is set aside; the prediction earns `min(1, matches among the others / 3)`; the mean counts.
    """
    wanted = normalise(prediction)
    return _leave_one_out([normalise(answer) == wanted for answer in answers])


def _leave_one_out(matches: Sequence[bool]) -> float:
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


@lru_cache(maxsize=65536)
def normalise_official(answer: str) -> str:
    """Return an answer in the form in which VQAv2's evaluation compares it (steps 2 to 4)."""
    return with_canonical_words(without_punctuation(without_line_breaks(answer), OFFICIAL_COMMA_BETWEEN_DIGITS))


def official_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy in [0, 1] by VQAv2's own rule: as `soft_accuracy`, but raw where all humans agree.

    With unanimous answers nothing is normalised and case counts, as in the official code.
    """
    wanted = without_line_breaks(prediction)
    golds = [without_line_breaks(answer) for answer in answers]
    if len(set(golds)) > 1:
        wanted, golds = normalise_official(wanted), [normalise_official(gold) for gold in golds]
    return _leave_one_out([gold == wanted for gold in golds])
