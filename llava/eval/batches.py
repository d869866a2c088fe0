"""Which questions are asked together: those of one image, then those of like length, so that little is filler."""

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

    The questions of an image follow each other wherever they stand in the file (POPE has them in three parts), so that
    it is opened once and what is computed of it can be used again. The batches depend on questions and batch size
    alone, never on what is answered already, so that a resumed run asks the same ones.

    Args:
        questions: all questions of the run.
        size: questions in a batch.
        processor: tells how many visual tokens an image becomes, where they differ (`visual_length`).
    """
    order = [place for places in by_image(questions) for place in places]
    window = size * WINDOW if size > 1 else 1
    for first in range(0, len(order), window):
        places = order[first : first + window]
        if size > 1:
            places = _longest_first(places, questions, processor)
        for start in range(0, len(places), size):
            yield sorted(places[start : start + size])


def by_image(questions: Sequence[Question]) -> list[list[int]]:
    """Return the places of the questions of every image, images in the order in which they are first asked about."""
    places: dict[Any, list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault(image_key(question), []).append(place)
    return list(places.values())


def image_key(question: Question) -> Any:
    """What questions about the same image or video have in common."""
    return id(question.image) if isinstance(question.image, Embedded) else question.image


def _longest_first(places: Sequence[int], questions: Sequence[Question], processor: Any) -> list[int]:
    """Sort by length, images by their longest question; ties stay in order."""
    lengths = {place: estimated_length(questions[place], processor) for place in places}
    longest: dict[Any, float] = {}
    for place in places:
        key = image_key(questions[place])
        longest[key] = max(longest.get(key, 0.0), lengths[place])
    rank = {key: number for number, key in enumerate(sorted(longest, key=lambda key: -longest[key]))}
    return sorted(places, key=lambda place: (rank[image_key(questions[place])], -lengths[place]))


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
