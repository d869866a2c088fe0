"""Ask one batch after the other: too large ones in halves, what a single question gets wrong recorded in its row."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size

from llava.errors import BadInput, LlavaError
from llava.eval import accounting
from llava.eval.answers import answer_row
from llava.eval.benchmarks.base import Question, Row
from llava.eval.generation import RUN_ERRORS, BatchAnswers, answer_batch, said
from llava.eval.sizing import BatchSize

TOO_LARGE = (
    "The device ran out of memory with a single question: use one with more, --load-4bit, a smaller --dtype or a "
    "lower --max-pixels."
)


@dataclass(frozen=True)
class LoadedModel:
    """A model, its processor, the path it was asked by, and the digest of its weights."""

    model: Any
    processor: Any
    path: str
    digest: str

    @property
    def name(self) -> str:
        """Short name for files: the last part of the path."""
        return Path(self.path).resolve().name


class Asker:
    """Asks batches and remembers whether the machine is warm and how many questions fit in its memory.

    Args:
        loaded: model and processor.
        pruning: the method on this model, entered; its `last` report is what a batch is measured by.
        max_new_tokens: longest answer.
        batch_size: questions asked for at once, or "auto".
        say: called with a sentence when fewer fit.
    """

    def __init__(
        self, loaded: LoadedModel, pruning: Any, max_new_tokens: int, batch_size: int | str, say: Callable[[str], None]
    ):
        self.loaded, self.pruning = loaded, pruning
        self.max_new_tokens, self.say = max_new_tokens, say
        self.batch = BatchSize(batch_size, loaded.model.device)
        self.cold = True

    def __call__(
        self, questions: Sequence[Question], opened: Mapping[int, Any], wanted: Collection[int], waited: float = 0.0
    ) -> Iterator[tuple[dict[int, Row], dict[str, Any]]]:
        """Yield answers by place and what was measured, for the whole batch or for parts that fit in the memory.

        Args:
            questions: all questions.
            opened: place -> image, frames, or why there is none, of the batch.
            wanted: places whose answers are missing; parts without any of them are not asked.
            waited: seconds that went by until the images were open; they count as preprocessing.

        Raises:
            LlavaError: not even the first question can be answered.
        """
        waiting = deque([list(opened)])
        while waiting:
            places = waiting.popleft()
            if not any(place in wanted for place in places):
                continue
            if len(places) <= self.batch.size:
                size = self.batch.size
                self.batch.begin()
                given = self._given([questions[place] for place in places], [opened[place] for place in places])
                if given is not None:
                    self.batch.done(len(places), warm=not self.cold)
                    given.seconds["preprocess"] += waited
                    waited = 0.0
                    yield self._rows(questions, places, given), self._measure(given, size)
                    continue
            half = -(-len(places) // 2)
            waiting.extendleft([places[half:], places[:half]])

    def _given(self, questions: Sequence[Question], opened: Sequence[Any]) -> BatchAnswers | None:
        """Return the answers of a batch, or None when it has to be asked in parts."""
        try:
            return answer_batch(self.loaded.model, self.loaded.processor, questions, self.max_new_tokens, opened)
        except RUN_ERRORS:
            raise
        except BadInput as error:  # one of the questions is refused by the model
            failure: Exception = error
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                raise
            failure = LlavaError(TOO_LARGE)
            self._shrink(len(questions))
        if len(questions) > 1:
            return None
        if self.cold:  # nothing has worked so far: it is hardly this question's fault
            raise failure
        return BatchAnswers([""], [said(failure)], {"preprocess": 0.0, "generate": 0.0, "first_token": 0.0}, 0)

    def _shrink(self, size: int) -> None:
        store = getattr(self.pruning, "reuse", None)
        if store is not None:
            store.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size > 1:
            self.batch.halve(size)
            self.say(f"The device ran out of memory with {size} questions at once; going on with {self.batch.size}.")

    def _rows(self, questions: Sequence[Question], places: Sequence[int], given: BatchAnswers) -> dict[int, Row]:
        import shortuuid

        answered = zip(places, given.texts, given.errors, strict=True)
        name = self.loaded.name
        return {p: answer_row(questions[p], text, name, shortuuid.uuid(), error) for p, text, error in answered}

    def _measure(self, given: BatchAnswers, size: int) -> dict[str, Any]:
        asked = sum(error is None for error in given.errors)
        warm_up, self.cold = self.cold, self.cold and not asked
        return {
            "asked": asked,
            "batch_size": size,
            "warm_up": warm_up,
            "seconds": given.seconds,
            "new_tokens": given.new_tokens,
            "accounting": accounting.batch_means(self.pruning.last) if asked else None,
        }
