"""Which questions are asked together: neighbours of like length, so that little of a batch is filler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from llava.eval.benchmarks.base import Embedded, Question

WINDOW = 16
"""Batches whose questions are sorted together; answers wait no longer than that for their turn in the file."""
CHARACTERS_PER_TOKEN = 4


def batches(questions: Sequence[Question], size: int, processor: Any) -> Iterator[list[int]]:
    """Yield the places of the questions that are asked together, the longest of every window first.

    The batches depend on questions and batch size alone, never on what is answered already, so that a resumed run asks
    the same ones.

    Args:
        questions: all questions of the run.
        size: questions in a batch.
        processor: tells how many visual tokens an image becomes, where they differ (`visual_length`).
    """
    window = size * WINDOW if size > 1 else 1
    for first in range(0, len(questions), window):
        places = list(range(first, min(first + window, len(questions))))
        if size > 1:
            places.sort(key=lambda place: -estimated_length(questions[place], processor))  # stable: ties stay in order
        for start in range(0, len(places), size):
            yield sorted(places[start : start + size])


def estimated_length(question: Question, processor: Any) -> float:
    """Return about how many tokens a prompt will have: its visual tokens and its characters, four to a token."""
    visual = 0
    if processor.lengths_vary and question.media == "image":
        size = image_size(question)
        visual = processor.visual_length(size) if size else 0
    return visual + len(question.prompt) / CHARACTERS_PER_TOKEN


def image_size(question: Question) -> tuple[int, int] | None:
    """Return (width, height) from the head of an image file; None when it cannot be read."""
    try:
        source: Path | Any = question.image.file() if isinstance(question.image, Embedded) else question.image
        with Image.open(source) as image:
            return image.size
    except Exception:  # whatever is wrong with it is reported when it is opened to be asked about
        return None
