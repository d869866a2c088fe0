"""The question-answering pipeline with its parts switched on and off one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from llava.errors import LlavaError
from llava.eval.batches import batches
from llava.eval.benchmarks.base import Question
from llava.eval.generation import answer_batch
from llava.eval.prefetch import opened_ahead, opened_or_error
from llava.model.families import family_of
from llava.model.families.tower import IMAGE
from llava.model.fast import Fast
from llava.model.reuse import Reuse
from llava.model.wrapping import Wrappers
from llava.reduction.base import Reduction

WORKERS, BATCH, LAST_LAYER, LAST_LOGITS = "workers", "batch", "last layer", "last logits"
FEATURES, PREFIX, COMPILED = "features", "prefix", "compiled"
PARTS = (WORKERS, BATCH, LAST_LAYER, LAST_LOGITS, FEATURES, PREFIX, COMPILED)
"""In the order in which they are switched on: images opened ahead in threads and turned into pixels once; several
questions at a time, those of an image together; the last layer of the vision tower left out; logits for the last
position only; vision features once per image; the prompt's beginning up to the image once per image; compiled."""
RELEASED: frozenset[str] = frozenset()
"""The pipeline as released: one question at a time, everything in line and anew."""


@dataclass(frozen=True)
class Subject:
    """Who answers what.

    Args:
        model, processor: as `llava.load` returns them.
        questions: what is asked, in file order.
        max_new_tokens: longest answer.
    """

    model: Any
    processor: Any
    questions: Sequence[Question]
    max_new_tokens: int

    def first(self, count: int) -> Subject:
        """The same with the first questions only."""
        return Subject(self.model, self.processor, self.questions[:count], self.max_new_tokens)


class Pipeline:
    """One way of answering.

    Args:
        subject: who answers what.
        method: which visual tokens survive; None: the model as transformers runs it.
        parts: of `PARTS`, those that are on.
        batch: questions at a time, if that part is on.
        reuse_bytes: most that may be kept of known images.
        fast: options of the compiled path.

    Raises:
        LlavaError: the method or a part cannot work on this model.
    """

    def __init__(
        self,
        subject: Subject,
        method: Reduction | None,
        parts: frozenset[str],
        batch: int,
        reuse_bytes: int,
        fast: Fast,
    ):
        self.subject, self.parts = subject, parts
        self.batch = batch if BATCH in parts else 1
        self.reuse = Reuse(reuse_bytes, prefixes=PREFIX in parts) if parts & {FEATURES, PREFIX} else None
        self.pruning: Any = None
        if method is not None:
            options: dict[str, Any] = {"fast": fast} if COMPILED in parts else {}
            self.pruning = method(subject.model, reuse=self.reuse, **options)

    def answers(self, subject: Subject | None = None) -> list[str]:
        """Return the answers of all questions in their order, with nothing kept from before.

        Raises:
            LlavaError: a question could not be asked.
        """
        subject = subject or self.subject
        if self.reuse is not None:
            self.reuse.clear()
        texts: dict[int, str] = {}
        with ExitStack() as stack:
            stack.enter_context(nullcontext() if LAST_LOGITS in self.parts else all_logits(subject.model))
            stack.enter_context(nullcontext() if LAST_LAYER in self.parts else whole_tower(subject.model))
            stack.enter_context(nullcontext() if self.pruning is None else self.pruning)
            for opened in self._opened(subject):
                asked = [subject.questions[place] for place in opened]
                given = answer_batch(
                    subject.model, subject.processor, asked, subject.max_new_tokens, list(opened.values())
                )
                failed = [error for error in given.errors if error]
                if failed:
                    raise LlavaError(failed[0])
                texts.update(zip(opened, given.texts, strict=True))
        return [texts[place] for place in range(len(subject.questions))]

    def _opened(self, subject: Subject) -> Iterator[dict[int, Any]]:
        """The images of one batch after the other, by the places of the questions."""
        planned: Any = [[place] for place in range(len(subject.questions))]
        if BATCH in self.parts:
            planned = batches(subject.questions, self.batch, subject.processor)
        if WORKERS in self.parts:
            for _, opened in opened_ahead(subject.processor, subject.questions, planned):
                yield opened
            return
        for places in planned:
            yield {place: opened_or_error(subject.processor, subject.questions[place]) for place in places}


@contextlib.contextmanager
def all_logits(model: Any) -> Iterator[None]:
    """Compute the logits of every position of a prompt, as the released code does."""
    wrappers = Wrappers()

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "logits_to_keep": 0})

    wrappers.wrap(model, "forward", around)
    try:
        yield
    finally:
        wrappers.unwrap_all()


@contextlib.contextmanager
def whole_tower(model: Any) -> Iterator[None]:
    """Run the vision tower to its end, also the layers that nothing reads: one that is wrapped is not left out."""
    wrappers = Wrappers()
    for block in family_of(model).tower_blocks(model, IMAGE)[-1:]:
        wrappers.wrap(block, "forward", lambda original, *args, **kwargs: original(*args, **kwargs))
    try:
        yield
    finally:
        wrappers.unwrap_all()
