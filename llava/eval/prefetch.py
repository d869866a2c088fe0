"""Open the images and videos of the next batches in the background while the model answers this one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from llava.errors import LlavaError
from llava.eval.benchmarks.base import Embedded, Question
from llava.model.images import load_image

BATCHES_AHEAD = 2
THREADS = 4


def open_media(processor: Any, question: Question) -> Any:
    """Return the image of a question in RGB, or the frames of its video as the processor takes them.

    Raises:
        BadInput: the file is absent, damaged, or of a kind that this model does not take.
    """
    if question.media == "video":
        return processor.open_video(question.image)
    if isinstance(question.image, Embedded):
        return load_image(question.image.file())
    return load_image(question.image)


def opened_ahead(
    processor: Any, questions: Sequence[Question], batches: Iterable[Sequence[int]]
) -> Iterator[tuple[float, dict[int, Any]]]:
    """Yield for each batch the seconds waited for it and what was opened by place: image, frames, or why there is none.

    Args:
        processor: opens videos.
        questions: all questions.
        batches: places of the questions that are asked together; read `BATCHES_AHEAD` batches in advance.
    """
    waiting: deque[tuple[Sequence[int], list[Future]]] = deque()
    source = iter(batches)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
    try:
        while True:
            while len(waiting) <= BATCHES_AHEAD and (places := next(source, None)) is not None:
                waiting.append(
                    (places, [pool.submit(opened_or_error, processor, questions[place]) for place in places])
                )
            if not waiting:
                return
            places, opening = waiting.popleft()
            start = time.perf_counter()
            opened = {place: one.result() for place, one in zip(places, opening, strict=True)}
            yield time.perf_counter() - start, opened
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def opened_or_error(processor: Any, question: Question) -> Any:
    """Return what `open_media` does, or the error that it raises."""
    try:
        return open_media(processor, question)
    except (LlavaError, OSError, ValueError) as error:
        return error
