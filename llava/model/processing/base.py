"""What every family's processor shares: prompts from turns, batches with left padding, answers back into text."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from llava.errors import BadInput, CheckpointError, ConfigurationError
from llava.model.conversation import VICUNA_V1, Template, Turn, mark_images, mark_videos
from llava.model.images import load_image

ImageSource = Image.Image | str | Path
VideoSource = Any
"""A path, or what a family's `open_video` takes besides."""


class Processor:
    """Turns prompts, images and videos into inputs of `generate()`, and ids back into text.

    A family's processor implements `encode` (one sample), and where needed `join`, `finish`, `open_video`, `prompt`.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        placeholders: token ids that the model replaces by visual features.
        device: where the tensors are put.
        template: conversation template of `prompt`.

    Raises:
        CheckpointError: the tokenizer pads with a placeholder.
    """

    family: ClassVar[str]
    """Name of the model family, as in `Family.name`."""
    marker_end: ClassVar[str] = "\n"
    """What stands between the marker of an image (video) and the text after it."""
    blank: bool = False
    """Set: hand on zeros instead of pixels (the mean colour of the normalisation), to see what is answered unseen."""
    lengths_vary: ClassVar[bool] = False
    """Whether `visual_length` tells images of different sizes apart."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        placeholders: Sequence[int],
        device: str | torch.device = "cpu",
        template: Template = VICUNA_V1,
    ):
        self.tokenizer = tokenizer
        self.placeholders = tuple(placeholders)
        self.device = torch.device(device)
        self.template = template
        self.pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        self._looked: dict[int, tuple[weakref.ref, Any]] = {}
        if self.pad_id in self.placeholders:
            raise CheckpointError(f"The tokenizer pads with the image placeholder (id {self.pad_id}).")

    def configure(self, *, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        """Set the limits of the pixels that images are resized to; None leaves one as it is.

        Raises:
            ConfigurationError: the family does not resize by pixels, or the values are no limits.
        """
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        given = [f"{name}={value}" for name, value in limits.items() if value is not None]
        if given:
            raise ConfigurationError(
                f"{' and '.join(given)} cannot be used with {self.family} models, whose images have fixed sizes: "
                "leave it out (Qwen-VL models take it)."
            )

    def settings(self) -> dict[str, Any]:
        """Return the options that decide the pixels, to be recorded with results."""
        return {"blank": True} if self.blank else {}

    def visual_length(self, size: tuple[int, int]) -> int:
        """Return the visual tokens of an image of this (width, height), where `lengths_vary`; else 0.

        Batches of like length are made with it.
        """
        return 0

    def prompt(self, text_or_turns: str | Sequence[Turn], n_images: int = 1, n_videos: int = 0) -> str:
        """Return the full prompt text.

        Args:
            text_or_turns: one question, or turns `(question, answer)`; the last answer is None.
            n_images, n_videos: images and videos of the whole conversation. Their `<image>` and `<video>` lines are put
                before the first question unless the texts already hold as many markers.

        Raises:
            BadInput: some markers in the text, but not as many as images or videos.
        """
        turns = [(text_or_turns, None)] if isinstance(text_or_turns, str) else text_or_turns
        marked = mark_images(mark_videos(turns, n_videos, self.marker_end), n_images, self.marker_end)
        return self.template.render(marked)

    def __call__(
        self,
        prompts: str | Sequence[str],
        images: Sequence[Sequence[ImageSource]] | None = None,
        videos: Sequence[Sequence[VideoSource]] | None = None,
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask` (B, T), left padded, and the family's pixel tensors if any.

        Args:
            prompts: full prompt texts (see `prompt`), one for each sample.
            images, videos: for each sample its images (videos) in the order of its markers; None when there are none.

        Raises:
            BadInput: the numbers of images and of markers differ, or an image or video cannot be used.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        images, videos = _per_prompt(images, len(prompts), "images"), _per_prompt(videos, len(prompts), "videos")
        rows: list[list[int]] = []
        parts: dict[str, list[Tensor]] = {}
        for prompt, pictures, films in zip(prompts, images, videos, strict=True):
            opened = [image if self._knows(image) else load_image(image) for image in pictures]
            ids, features = self.encode(prompt, opened, [self.open_video(film) for film in films])
            rows.append(ids)
            for name, value in features.items():
                parts.setdefault(name, []).append(value)
        length = max(map(len, rows), default=0)
        if length == 0:
            raise BadInput("There is no prompt: give at least one that is not empty.")
        batch = {
            "input_ids": torch.tensor([[self.pad_id] * (length - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
            **{name: self.join(name, values) for name, values in parts.items()},
        }
        batch = self.finish(batch)
        if self.blank:
            batch = {k: torch.zeros_like(v) if v.is_floating_point() else v for k, v in batch.items()}
        return BatchFeature(batch).to(self.device)

    def encode(self, prompt: str, images: list[Image.Image], videos: list[Any]) -> tuple[list[int], dict[str, Tensor]]:
        """Return the token ids of one sample, placeholders included, and its visual inputs by name.

        Args:
            prompt: full prompt text.
            images: RGB images, in the order of the markers.
            videos: what `open_video` returned, in the order of the markers.

        Raises:
            BadInput: the numbers of images (videos) and of markers differ.
        """
        raise NotImplementedError

    def look_at(self, image: Image.Image) -> None:
        """Prepare the pixels of an image ahead of the prompts that show it; may run in another thread.

        They are kept as long as the image object, which must not be changed any more.
        """
        pixels, key = self.pixels(image), id(image)
        self._looked[key] = (weakref.ref(image, lambda _: self._looked.pop(key, None)), pixels)

    def looked_at(self, image: Image.Image) -> Any:
        """Return the pixels of an image, those of `look_at` if there are any."""
        return self._looked[id(image)][1] if self._knows(image) else self.pixels(image)

    def _knows(self, image: Any) -> bool:
        known = self._looked.get(id(image))
        return known is not None and known[0]() is image

    def pixels(self, image: Image.Image) -> Any:
        """Return what an image alone decides of the model's inputs, in the family's own form."""
        return None

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        """Return one input for the batch from those of its samples; by default along the first axis."""
        return torch.cat(parts)

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch with what can only be made from all of it."""
        return batch

    def open_video(self, source: VideoSource) -> Any:
        """Return the frames of a video, in the form that `encode` takes.

        Raises:
            BadInput: this family takes no videos, or the file cannot be used.
        """
        raise BadInput(f"{self.family} models take images, not videos: give frames of the video as images.")

    def decode(self, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of ids (B, T), special tokens and placeholders dropped, stripped."""
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        kept = [[i for i in row if i not in self.placeholders] for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(kept, skip_special_tokens=True)]


def check_count(marker: str, marked: int, given: int, what: str) -> None:
    """Refuse a prompt whose markers are not as many as the images (videos) given.

    Raises:
        BadInput: says both numbers.
    """
    if marked != given:
        raise BadInput(f"The prompt has {marked} {marker} markers but {given} {what} were given: they must be as many.")


def _per_prompt(given: Sequence[Sequence[Any]] | None, n_prompts: int, what: str) -> list[list[Any]]:
    lists = [[] for _ in range(n_prompts)] if given is None else [list(sample) for sample in given]
    if len(lists) != n_prompts:
        raise BadInput(f"{n_prompts} prompts but {len(lists)} lists of {what}: give one list for each prompt.")
    return lists
