"""What a method chose of an image before the language model, kept for the next question about that image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llava.model.encoding import Units, digests, subset
from llava.model.families.base import Family
from llava.model.reuse import CHOSEN, Reuse, digest, size_of
from llava.reduction.image import BeforeLLM, Kept


@dataclass(frozen=True)
class Choice:
    """What goes on of one image.

    Args:
        kept: which tokens.
        features: (K, D) what the language model gets.
        kind: class of what the model's feature function returns.
        as_tensor: whether it holds the features of all images in one tensor.
    """

    kept: Kept
    features: Tensor
    kind: type
    as_tensor: bool

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        kept = self.kept
        return size_of(self.features, kept.indices, kept.sources, kept.scores, *kept.handed.values())

    def template(self) -> Any:
        """What the feature function returns, without features."""
        output = self.kind()
        output.pooler_output = self.features[:0] if self.as_tensor else []
        return output


class Chosen:
    """The images of one kind of one call, as far as a method has chosen among their tokens before.

    Args:
        reuse: the store.
        method: its options, and nothing of the question, decide what is chosen.
        model, family: a vision-language model and its adapter.
        inputs: the model's arguments.
        kind: "image" or "video".
        lengths: visual tokens the prompts have a place for, per image.
        scores: whether choices have to have scores.
    """

    def __init__(
        self,
        reuse: Reuse,
        method: BeforeLLM,
        model: Any,
        family: Family,
        inputs: dict[str, Any],
        kind: str,
        lengths: Sequence[int],
        scores: bool,
    ):
        self.reuse, self.family, self.inputs, self.kind = reuse, family, inputs, kind
        vision = {name: inputs[name] for name in family.vision_inputs(model) if inputs.get(name) is not None}
        own = (type(method), repr(method), scores)
        found = digests(family, vision, kind)
        self.matches = len(found) == len(lengths)
        self.units: Units = []
        self.keys: list[Hashable] = []
        self.choices: dict[Hashable, Choice] = {}
        self.first: dict[Hashable, int] = {}
        for number, (seen, n_visual) in enumerate(zip(found, lengths, strict=False)):
            key = (*reuse.scope(model), *own, seen, n_visual)
            self.keys.append(key)
            if key in self.choices or key in self.first:
                reuse.again(CHOSEN)
                continue
            choice = reuse.get(CHOSEN, key)
            if choice is None:
                self.first[key] = number
            else:
                self.choices[key] = choice

    @property
    def missing(self) -> list[int]:
        """Numbers of the images that have to be encoded."""
        return list(self.first.values())

    def inputs_of_missing(self) -> dict[str, Any]:
        """The arguments for those images alone."""
        numbers = self.missing
        return self.inputs if len(numbers) == len(self.keys) else subset(self.family, self.inputs, self.kind, numbers)

    def known(self, number: int) -> Choice | None:
        """What was chosen of an image, if it is known by now."""
        return self.choices.get(self.keys[number])

    def keep(self, number: int, kept: Kept, features: Tensor, output: Any) -> None:
        """Keep what was chosen of an image now."""
        features = features.clone()
        kept = kept if kept.values is None else replace(kept, values=features)
        choice = Choice(kept, features, type(output), torch.is_tensor(output.pooler_output))
        self.choices[self.keys[number]] = choice
        if not self.reuse.put(CHOSEN, self.keys[number], choice, choice.size):
            self.reuse.note(
                f"What is chosen of an image has {choice.size} bytes, more than the {self.reuse.limit} that may be "
                "kept: images are encoded anew for every question. Give a larger limit."
            )

    def unit(self, number: int) -> tuple[bytes, int]:
        """Digest and number of tokens of what goes on of an image."""
        return digest(*self.keys[number]), self.choices[self.keys[number]].kept.count  # type: ignore[misc]
