"""Prompts and images to model inputs, exactly as LLaVA-1.5 was trained and evaluated (official code, `mm_utils`).

Different from transformers' own processor on purpose: images are padded to a square instead of cropped, the prompt has
the system sentence, and text is tokenised piece by piece around `<image>`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

from llava.errors import BadInput, CheckpointError
from llava.model.conversation import IMAGE_MARKER, VICUNA_V1, Template, Turn, mark_images
from llava.model.images import load_image, pixel_values

ImageSource = Image.Image | str | Path


class Processor:
    """Turns prompts and images into inputs of `generate()`, and ids back into text.

    Args:
        tokenizer: the checkpoint's transformers tokenizer.
        image_size: side of the vision tower's input in pixels.
        image_mean, image_std: three numbers each, for values in [0, 1].
        n_visual: visual tokens of one image.
        image_token_id: placeholder id that the model replaces by an image's features.
        device: where the tensors are put.
        template: conversation template of `prompt`.
    """

    family = "llava"

    def __init__(
        self,
        tokenizer: Any,
        *,
        image_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        n_visual: int,
        image_token_id: int,
        device: str | torch.device = "cpu",
        template: Template = VICUNA_V1,
    ):
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)
        self.n_visual = n_visual
        self.image_token_id = image_token_id
        self.device = torch.device(device)
        self.template = template
        self._piece_prefix = _piece_prefix(tokenizer)
        self._pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        if self._pad_id == image_token_id:
            raise CheckpointError(f"The tokenizer pads with the image placeholder (id {image_token_id}).")

    def prompt(self, text_or_turns: str | Sequence[Turn], n_images: int = 1) -> str:
        """Return the full prompt text.

        Args:
            text_or_turns: one question, or turns `(question, answer)`; the last answer is None.
            n_images: images of the whole conversation. Their `<image>` lines are put before the first question unless
                the texts already hold as many markers.

        Raises:
            BadInput: some markers in the text, but not as many as images.
        """
        turns = [(text_or_turns, None)] if isinstance(text_or_turns, str) else text_or_turns
        return self.template.render(mark_images(turns, n_images))

    def __call__(
        self, prompts: str | Sequence[str], images: Sequence[Sequence[ImageSource]] | None = None
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask` (B, T), left padded, and `pixel_values` (N, 3, S, S) if any image.

        Args:
            prompts: full prompt texts (see `prompt`), one for each sample.
            images: for each sample its images in the order of its markers; None when there are none at all.

        Raises:
            BadInput: the numbers of images and of markers differ, or an image cannot be used.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        images = [[] for _ in prompts] if images is None else [list(sample) for sample in images]
        if len(images) != len(prompts):
            raise BadInput(f"{len(prompts)} prompts but {len(images)} lists of images: give one list for each prompt.")
        rows = [self.token_ids(prompt, len(sample)) for prompt, sample in zip(prompts, images, strict=True)]
        length = max(map(len, rows), default=0)
        if length == 0:
            raise BadInput("There is no prompt: give at least one that is not empty.")
        features = {
            "input_ids": torch.tensor([[self._pad_id] * (length - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        }
        loaded = [load_image(image) for sample in images for image in sample]
        if loaded:
            features["pixel_values"] = torch.stack([self.pixel_values(image) for image in loaded])
        return BatchFeature(features).to(self.device)

    def pixel_values(self, image: Image.Image) -> torch.Tensor:
        """Return the tower's input for one RGB image, (3, S, S) float32."""
        return pixel_values(image, self.image_size, self.image_mean, self.image_std)

    def token_ids(self, prompt: str, n_images: int) -> list[int]:
        """Return the ids of a prompt: BOS once, each piece tokenised on its own, `n_visual` placeholders per image.

        Raises:
            BadInput: the prompt does not have `n_images` markers.
        """
        pieces = prompt.split(IMAGE_MARKER)
        if len(pieces) - 1 != n_images:
            raise BadInput(
                f"The prompt has {len(pieces) - 1} {IMAGE_MARKER} markers but {n_images} images were given: "
                "they must be as many."
            )
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [bos]
        for number, piece in enumerate(pieces):
            if number:
                ids += [self.image_token_id] * self.n_visual
            ids += self._piece_ids(piece)
        return ids

    def _piece_ids(self, piece: str) -> list[int]:
        """Tokenise text between images. As in the tokenizer LLaVA used, text after an end-of-sequence starts afresh."""
        eos = self.tokenizer.eos_token
        ids: list[int] = []
        for number, part in enumerate(piece.split(eos) if eos else [piece]):
            if number:
                ids.append(self.tokenizer.eos_token_id)
            if part:
                ids += self.tokenizer(self._piece_prefix + part, add_special_tokens=False).input_ids
        return ids

    def decode(self, ids: torch.Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of ids (B, T), special tokens and placeholders dropped, stripped."""
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        kept = [[i for i in row if i != self.image_token_id] for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(kept, skip_special_tokens=True)]


def _piece_prefix(tokenizer: Any) -> str:
    """Return what to put before a text so that it is tokenised as SentencePiece does at the start of a sentence.

    SentencePiece always puts one `▁` first: a line break after an image is `▁`, newline, and a leading space `▁▁`.
    transformers' Llama tokenizers leave it out where the text starts with a space already (or, after some conversions,
    everywhere), but turn a space we write ourselves into it. Tokenizers without `▁` are left alone.
    """
    pieces = "".join(tokenizer.tokenize(" x"))
    return " " if len(pieces) - len(pieces.lstrip("▁")) == 1 else ""
