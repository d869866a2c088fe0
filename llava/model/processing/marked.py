"""Prompts of families that tokenise the whole text at once, every image written out as markers and placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from llava.errors import BadInput, CheckpointError
from llava.model.conversation import IMAGE_MARKER, Template
from llava.model.processing.base import Processor, check_count


class MarkedProcessor(Processor):
    """A family implements `pictures`: the model's inputs for a sample's images, and the text that stands for each.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        images: transformers' image processor; None: the family needs none.
        n_visual: visual tokens, of what the family says.
        device: where the tensors are put.

    Raises:
        CheckpointError: the tokenizer lacks the placeholder or a marker.
    """

    placeholder: ClassVar[str]
    """Token that the model replaces by a visual feature."""
    markers: ClassVar[tuple[str, ...]] = ()
    """Other tokens the family writes around images."""
    chat: ClassVar[Template]
    """Conversation template of `prompt`."""

    def __init__(self, tokenizer: Any, images: Any = None, *, n_visual: Any, device: str | torch.device = "cpu"):
        absent = sorted({self.placeholder, *self.markers} - set(tokenizer.get_vocab()))
        if absent:
            raise CheckpointError(f"The tokenizer is not one of a {self.family} model: it has no {', '.join(absent)}.")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.placeholder)
        super().__init__(tokenizer, placeholders=(self.image_token_id,), device=device, template=self.chat)
        self.images, self.n_visual = images, n_visual

    def encode(self, prompt: str, images: list[Image.Image], videos: list[Any]) -> tuple[list[int], dict[str, Tensor]]:
        features, texts = self.pictures(images) if images else ({}, [])
        return self.tokenizer(self.written_out(prompt, texts), add_special_tokens=False).input_ids, features

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the model's inputs for the images of one sample, and for each image the text that stands for it."""
        raise NotImplementedError

    def written_out(self, prompt: str, texts: Sequence[str]) -> str:
        """Return the prompt with `texts` in the places of its image markers.

        Raises:
            BadInput: not one marker for each image, or the prompt holds the placeholder itself.
        """
        first, *pieces = prompt.split(IMAGE_MARKER)
        check_count(IMAGE_MARKER, len(pieces), len(texts), "images")
        if any(self.placeholder in piece for piece in (first, *pieces)):
            raise BadInput(f"A prompt cannot contain {self.placeholder}: it stands for visual tokens. Leave it out.")
        return first + "".join(text + piece for text, piece in zip(texts, pieces, strict=True))


def join_padded(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Return tensors joined along the first axis, filled with zeros to the longest along another."""
    longest = max(part.shape[axis] for part in parts)
    after = [0, 0] * (parts[0].ndim - 1 - axis)
    return torch.cat([F.pad(part, (*after, 0, longest - part.shape[axis])) for part in parts])


def image_processor(folder: Path, name: str) -> Any:
    """Return a checkpoint's image processor, in transformers' variant on Pillow, which needs no torchvision.

    Args:
        folder: of the checkpoint.
        name: of the class, without the suffix for Pillow.

    Raises:
        CheckpointError: no settings, or settings the class does not take.
    """
    import transformers

    from llava.errors import first_line
    from llava.model.checkpoints import image_processor_config

    settings = dict(image_processor_config(folder))
    for key in ("image_processor_type", "processor_class", "auto_map", "feature_extractor_type"):
        settings.pop(key, None)
    try:
        return getattr(transformers, f"{name}Pil").from_dict(settings)
    except Exception as error:  # transformers checks settings in many ways
        raise CheckpointError(
            f"{folder}: the settings of its image processor do not fit: {first_line(error)}"
        ) from error
