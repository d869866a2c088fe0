"""What benchmarks and runner exchange: questions, rows of answers, metrics, scores, official numbers."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import BadData

SINGLE_WORD = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."
LMMS_FAMILIES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
"""Families whose published numbers come from lmms-eval's prompts."""


@dataclass(frozen=True)
class Embedded:
    """An image that is kept in a table instead of a file of its own.

    Args:
        where: file and row, for messages.
        data: the image file in base64.
    """

    where: str
    data: str = field(repr=False)

    def file(self) -> io.BytesIO:
        """Return the image file.

        Raises:
            BadData: the text is not base64.
        """
        try:
            return io.BytesIO(base64.b64decode(self.data, validate=True))
        except (binascii.Error, ValueError) as error:
            raise BadData(f"{self.where}: the image is not base64 text ({error}).") from error


@dataclass(frozen=True)
class Question:
    """One row of a question file.

    Args:
        id: `question_id` as in the file; it need not be unique (TextVQA, MME).
        image: path of the image or video, or the image itself where the question file holds it.
        text: question as in the file; stored as `prompt` in the answers file.
        prompt: what the model is asked (often the same).
        category: split or sub-task.
        image_name: `image` as in the file.
        media: "image" or "video".
        extra: further fields of its row in the answers file.
    """

    id: Hashable
    image: Path | Embedded
    text: str
    prompt: str
    category: str
    image_name: str
    media: str = "image"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One number of a score.

    Args:
        name: short lower-case key, unique within its group.
        value: the number; None when it is not defined for these answers.
        unit: "%", "points" or "" (counts, fractions).
        group: split or sub-task; empty for the whole benchmark.
        samples: answers the number was computed from.
    """

    name: str
    value: float | None
    unit: str = ""
    group: str = ""
    samples: int | None = None


@dataclass(frozen=True)
class Score:
    """Result of a scorer.

    Args:
        headline: the number the literature quotes; its value is None where only a server or a judge can give it.
        metrics: the numbers it comes from.
        samples: answers scored.
        expected: answers that the complete data set has.
        printout: lines in the manner of the official scorer.
        notes: sentences about absent parts, undefined values and the like.
        missing: ids of questions without an answer (where the scorer knows them).
    """

    headline: Metric
    metrics: tuple[Metric, ...]
    samples: int
    expected: int
    printout: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Official:
    """Unpruned reference number of one model: `model`, `value`, `source` and the name of the metric it is."""

    model: str
    value: float
    source: str
    metric: str


Row = dict[str, Any]
"""One line of an answers file: question_id, prompt, text, answer_id, model_id, metadata."""
