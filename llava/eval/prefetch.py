"""Open the images and videos of the next batches in the background while the model answers this one.

An image is opened and turned into pixels once for all questions that are asked about it together.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from llava.errors import LlavaError
from llava.eval.batches import image_key
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
    waiting: deque[tuple[Sequence[int], dict[int, Future]]] = deque()
    source = iter(batches)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
    last: dict[Any, Future] = {}  # of the batch before: its last image may go on in the next
    try:
        while True:
            while len(waiting) <= BATCHES_AHEAD and (places := next(source, None)) is not None:
                now: dict[Any, Future] = {}
                for place in places:
                    key = image_key(questions[place])
                    if key not in now:
                        now[key] = last.get(key) or pool.submit(_ready, processor, questions[place])
                waiting.append((places, {place: now[image_key(questions[place])] for place in places}))
                last = now
            if not waiting:
                return
            places, opening = waiting.popleft()
            start = time.perf_counter()
            opened = {place: opening[place].result() for place in places}
            yield time.perf_counter() - start, opened
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ready(processor: Any, question: Question) -> Any:
    """Return the opened image, its pixels already prepared in the processor; or why it cannot be opened."""
    opened = opened_or_error(processor, question)
    if question.media == "image" and not isinstance(opened, Exception):
        with contextlib.suppress(Exception):  # whatever is wrong with it is reported when it is asked about
            processor.look_at(opened)
    return opened


def opened_or_error(processor: Any, question: Question) -> Any:
    """Return what `open_media` does, or the error that it raises."""
    try:
        return open_media(processor, question)
    except (LlavaError, OSError, ValueError) as error:
        return error
