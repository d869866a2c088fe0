"""The prompt of a request for vLLM: as many places per image as tokens will go on.

Touches, of vLLM 0.32: `BaseMultiModalProcessor._get_prompt_updates` and `_get_hf_mm_inputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from PIL import Image

from llava.model.images import pad_to_square
from llava.reduction.base import Reduction
from llava.serve.vllm import settings
from llava.serve.vllm.choosing import n_places

IMAGE = "image"


class FewerPlaces:
    """Mixin of vLLM's multimodal processors, before the class it changes."""

    info: Any

    @cached_property
    def reduction(self) -> Reduction:
        """What the operator asked for."""
        return settings.of_model(self.info.ctx.model_config)

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        updates = super()._get_prompt_updates(*args, **kwargs)  # type: ignore[misc]
        return [self._shortened(update) if update.modality == IMAGE else update for update in updates]

    def _shortened(self, update: Any) -> Any:
        whole: Callable[[int], Sequence[int]] | Sequence[int] = update.replacement

        def fewer(number: int) -> Sequence[int]:
            ids = whole(number) if callable(whole) else whole
            return ids[: n_places(self.reduction, len(ids))]

        return replace(update, replacement=fewer)


class Squared:
    """Mixin of vLLM's processors: images are padded to a square, as LLaVA-1.5 was trained, instead of cropped."""

    info: Any

    def _get_hf_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        inputs = super()._get_hf_mm_inputs(*args, **kwargs)  # type: ignore[misc]
        mean = self.info.get_hf_processor().image_processor.image_mean
        given, *rest = inputs
        return type(inputs)(_padded(given, mean), *rest)


def _padded(given: Mapping[str, Any], mean: Sequence[float]) -> dict[str, Any]:
    fill = (int(255 * mean[0]), int(255 * mean[1]), int(255 * mean[2]))
    return {name: _squares(value, fill) if name == "images" else value for name, value in given.items()}


def _squares(images: Any, fill: tuple[int, int, int]) -> Any:
    if isinstance(images, Image.Image):
        return pad_to_square(images.convert("RGB"), fill)
    if isinstance(images, (list, tuple)):
        return [_squares(image, fill) for image in images]
    return images  # arrays: the caller has prepared them
