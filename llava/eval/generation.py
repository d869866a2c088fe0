"""Answer one batch of questions with a model: open the images, generate greedily, measure each part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llava.errors import BadInput, LlavaError
from llava.eval.benchmarks.base import Embedded, Question
from llava.model.images import load_image


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


def answer_batch(model: Any, processor: Any, questions: Sequence[Question], max_new_tokens: int) -> BatchAnswers:
    """Return greedy answers; a question whose image cannot be used gets an error instead of ending the run.

    Raises:
        LlavaError: the device has not enough memory for the batch.
    """
    start = time.perf_counter()
    texts = [""] * len(questions)
    errors: list[str | None] = [None] * len(questions)
    opened: dict[int, Any] = {}
    for place, question in enumerate(questions):
        try:
            opened[place] = open_media(processor, question)
        except BadInput as error:
            errors[place] = str(error)
    if not opened:
        return BatchAnswers(texts, errors, {"preprocess": 0.0, "generate": 0.0, "first_token": 0.0}, 0)
    inputs = model_inputs(processor, [questions[place] for place in opened], list(opened.values()))
    prepared = now(model.device)
    clock = FirstTokenClock()
    generated = generate(model, inputs, max_new_tokens, clock)
    done = now(model.device)
    for place, text in zip(opened, processor.decode(generated), strict=True):
        texts[place] = text
    first = (clock.time or done) - prepared
    seconds = {"preprocess": prepared - start, "generate": done - prepared, "first_token": first}
    return BatchAnswers(texts, errors, seconds, generated.shape[1])


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


def model_inputs(processor: Any, questions: Sequence[Question], opened: Sequence[Any]) -> Any:
    """Return the inputs of `generate()` for questions of one kind and what `open_media` gave for them."""
    each = [[one] for one in opened]
    if questions[0].media == "video":
        prompts = [processor.prompt(question.prompt, n_images=0, n_videos=1) for question in questions]
        return processor(prompts, videos=each)
    return processor([processor.prompt(question.prompt) for question in questions], each)


def generate(model: Any, inputs: Any, max_new_tokens: int, clock: FirstTokenClock) -> torch.Tensor:
    """Return the generated ids (B, new), without the prompt."""
    batch, prompt_length = inputs["input_ids"].shape
    try:
        with torch.inference_mode():
            ids = model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                use_cache=True,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
    except torch.OutOfMemoryError as error:
        raise LlavaError(
            f"The device ran out of memory with {batch} questions at once. What was answered is kept: "
            f"repeat the command with --batch-size {max(1, batch // 2)}."
        ) from error
    return ids[:, prompt_length:]
