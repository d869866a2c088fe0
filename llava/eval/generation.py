"""Answer one batch of questions with a model: make the inputs, generate greedily, measure each part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llava.errors import BadInput, ConfigurationError, LlavaError, UnsupportedModel
from llava.eval.benchmarks.base import Question
from llava.eval.prefetch import opened_or_error

ROW_ERRORS = (BadInput, OSError, ValueError, IndexError, KeyError)
"""What a processor may raise over one image or text..."""
RUN_ERRORS = (ConfigurationError, UnsupportedModel)
"""...and what concerns the whole run all the same."""


@dataclass(frozen=True)
class BatchAnswers:
    """Answers of one batch, in question order.

    Args:
        texts: answers; empty where the question could not be asked.
        errors: why a question could not be asked, or None.
        seconds: `preprocess` (images and tokens), `generate` (all of it), `first_token` (its start, up to the first
            generated token); 0 when nothing could be asked.
        new_tokens: generated columns, filler included.
    """

    texts: list[str]
    errors: list[str | None]
    seconds: dict[str, float]
    new_tokens: int


class FirstTokenClock(StoppingCriteria):
    """Never stops a generation; notes when its first token was there."""

    def __init__(self) -> None:
        self.time: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if self.time is None:
            self.time = now(input_ids.device)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def now(device: torch.device) -> float:
    """Return the time in seconds once the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def answer_batch(
    model: Any, processor: Any, questions: Sequence[Question], max_new_tokens: int, opened: Sequence[Any] | None = None
) -> BatchAnswers:
    """Return greedy answers; a question that cannot be asked gets an error instead of ending the run.

    Args:
        model, processor: who answers.
        questions: the batch.
        max_new_tokens: longest answer.
        opened: image, frames, or the error that opening them gave, for each question; None: they are opened here.

    Raises:
        torch.OutOfMemoryError: the device has not enough memory for the batch.
    """
    start = time.perf_counter()
    texts = [""] * len(questions)
    if opened is None:
        opened = [opened_or_error(processor, question) for question in questions]
    errors = [said(one) if isinstance(one, Exception) else None for one in opened]
    inputs = _inputs_of_good(processor, questions, opened, errors)
    good = [place for place, error in enumerate(errors) if error is None]
    if not good:
        return BatchAnswers(texts, errors, {"preprocess": 0.0, "generate": 0.0, "first_token": 0.0}, 0)
    prepared = now(model.device)
    clock = FirstTokenClock()
    generated = generate(model, inputs, max_new_tokens, clock)
    done = now(model.device)
    for place, text in zip(good, processor.decode(generated), strict=True):
        texts[place] = text
    first = (clock.time or done) - prepared
    seconds = {"preprocess": prepared - start, "generate": done - prepared, "first_token": first}
    return BatchAnswers(texts, errors, seconds, generated.shape[1])


def said(error: Exception) -> str:
    """Return an error as a sentence for the answers file."""
    return str(error) if isinstance(error, LlavaError) else f"{type(error).__name__}: {error}"


def _inputs_of_good(
    processor: Any, questions: Sequence[Question], opened: Sequence[Any], errors: list[str | None]
) -> Any:
    """Return the inputs of the questions without an error; those that the processor refuses get one in `errors`."""
    good = [place for place, error in enumerate(errors) if error is None]
    if not good:
        return None
    try:
        return model_inputs(processor, [questions[place] for place in good], [opened[place] for place in good])
    except RUN_ERRORS:
        raise
    except ROW_ERRORS:
        pass  # which of them it was shows when they are prepared one by one
    for place in good:
        try:
            model_inputs(processor, [questions[place]], [opened[place]])
        except ROW_ERRORS as error:
            errors[place] = said(error)
    rest = [place for place in good if errors[place] is None]
    if len(rest) == len(good):  # not the fault of one of them
        return model_inputs(processor, [questions[place] for place in good], [opened[place] for place in good])
    return model_inputs(processor, [questions[p] for p in rest], [opened[p] for p in rest]) if rest else None


def model_inputs(processor: Any, questions: Sequence[Question], opened: Sequence[Any]) -> Any:
    """Return the inputs of `generate()` for questions of one kind and what `open_media` gave for them."""
    each = [[one] for one in opened]
    if questions[0].media == "video":
        prompts = [processor.prompt(question.prompt, n_images=0, n_videos=1) for question in questions]
        return processor(prompts, videos=each)
    return processor([processor.prompt(question.prompt) for question in questions], each)


def generate(model: Any, inputs: Any, max_new_tokens: int, clock: FirstTokenClock) -> torch.Tensor:
    """Return the generated ids (B, new), without the prompt."""
    prompt_length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        ids = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
    return ids[:, prompt_length:]
