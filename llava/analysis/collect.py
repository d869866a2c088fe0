"""Run methods on batches and hand over what each kept of every image, and what the model then said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava.commandline import warn
from llava.errors import BadInput
from llava.methodlists import Choice

MANY = (
    "A prompt with {n} images: the analyses compare what is left of one image. Take a benchmark with one image per "
    "question, e.g. --benchmark pope."
)


@dataclass(frozen=True)
class Sample:
    """One image under one method.

    Args:
        kept: ascending offsets of its visual tokens in the last layer; of merged ones, of where they mainly come from.
        n_visual: its visual tokens before any cut.
        logits: (V,) of the first generated token, on the CPU.
        entering: (S, D) hidden states of the real columns that enter the layer that was watched; None if none was.
        visual: (S,) True at visual columns of `entering`.
    """

    kept: np.ndarray
    n_visual: int
    logits: Tensor
    entering: Tensor | None = None
    visual: Tensor | None = None

    @property
    def mask(self) -> np.ndarray:
        """(n_visual,) True at kept tokens."""
        mask = np.zeros(self.n_visual, dtype=bool)
        mask[self.kept] = True
        return mask


def batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Yield consecutive parts of at most `size` items."""
    for first in range(0, len(items), size):
        yield list(items[first : first + size])


def asked(processor: Any, questions: Sequence[Any]) -> Any:
    """Return the model's inputs for questions of a benchmark, their images opened."""
    from llava.eval.generation import model_inputs
    from llava.eval.prefetch import open_media

    return model_inputs(processor, questions, [open_media(processor, question) for question in questions])


def run(model: Any, inputs: Any, method: Any, watch: int | None = None) -> list[Sample]:
    """Run the prefill of a batch under a method.

    Args:
        inputs: of the model's own processor, one image (or video) per prompt.
        method: which visual tokens survive.
        watch: decoder layer whose input is handed over (before its cut); None: none.

    Raises:
        BadInput: a prompt has several images.
    """
    with method(model) as pruning, torch.inference_mode():
        decoder = pruning.family.decoder(model)
        with _entering(decoder.layers[watch] if watch is not None else None) as seen:
            output = model.generate(
                **inputs.to(model.device),
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        report = pruning.last
        placeholders = pruning.family.placeholders(model)
    several = [images for images in report.indices if len(images) != 1]
    if several:
        raise BadInput(MANY.format(n=len(several[0])))
    real = inputs["attention_mask"].bool()
    visual = torch.isin(inputs["input_ids"], torch.tensor(placeholders, device=real.device))
    found = []
    for row, (indices,) in enumerate(report.indices):
        hidden = seen[0][row][real[row]].cpu() if seen else None
        found.append(
            Sample(
                kept=indices.cpu().numpy(),
                n_visual=report.visual[row],
                logits=output.logits[0][row].float().cpu(),
                entering=hidden,
                visual=visual[row][real[row]].cpu() if seen else None,
            )
        )
    return found


def kept_by_all(
    model: Any, all_inputs: Iterator[Any], choices: Sequence[Choice]
) -> tuple[list[Choice], list[list[Sample]]]:
    """Run every method on every batch.

    Args:
        all_inputs: one batch after the other.
        choices: the methods.

    Returns:
        The methods whose tokens have a place in the image, and for each of them one sample per image.

    Raises:
        BadInput: there is none.
    """
    samples: list[list[Sample]] = [[] for _ in choices]
    for inputs in all_inputs:
        for own, choice in zip(samples, choices, strict=True):
            own += run(model, inputs, choice.method)
    placed = [number for number, own in enumerate(samples) if all(len(sample.kept) for sample in own)]
    for number, choice in enumerate(choices):
        if number not in placed:
            warn(f"{choice.label} was left out: its tokens have no place in the image.")
    if not placed:
        raise BadInput(
            "There is no method whose kept tokens have a place in the image: type for example --methods dart,random."
        )
    return [choices[number] for number in placed], [samples[number] for number in placed]


@contextmanager
def _entering(layer: Any) -> Iterator[list[Tensor]]:
    """Collect the hidden states that enter a layer while the block runs."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
