"""Generating without a cache: the prompt is run again with every token, and must keep the tokens chosen at first."""

from __future__ import annotations

from typing import Any

import torch

from llava.model.layout import Layout
from llava.model.stages import PromptState, Stage

IMAGE_INPUTS = ("pixel_values", "pixel_values_images", "pixel_values_videos", "mm_encoder_outputs")


class UncachedPrompt:
    """A prompt that ran without a cache, with its cuts.

    Args:
        layout: its layout.
        inputs: keyword arguments of the model's body.
        state: its cuts, filled in while the prompt runs.
    """

    def __init__(self, layout: Layout, inputs: dict[str, Any], state: PromptState):
        self.layout, self.state = layout, state
        self.images = image_inputs(inputs)
        self.newest = layout.host_ids

    def is_continued_by(self, layout: Layout, inputs: dict[str, Any]) -> bool:
        """Whether a prompt is the newest form of this one with one token more: same image objects, same ids."""
        same_images = all(a is b for a, b in zip(self.images, image_inputs(inputs), strict=True))
        if not (same_images and torch.equal(layout.host_ids[:, :-1], self.newest)):
            return False
        self.newest = layout.host_ids
        return True

    def stages(self, n_columns: int) -> list[Stage]:
        """The cuts for the longer prompt: the tokens chosen at first, and all that was appended."""
        return [stage.extended(n_columns, self.layout.host_ids.shape[1]) for stage in self.state.stages]


def image_inputs(inputs: dict[str, Any]) -> list[Any]:
    """The image inputs of a call, each None when absent."""
    images = [inputs.get(name) for name in IMAGE_INPUTS]
    # transformers rebuilds the dict of encoder outputs for every call; the outputs in it stay the same objects.
    return [next(iter(image.values()), None) if isinstance(image, dict) else image for image in images]
