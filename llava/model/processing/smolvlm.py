"""Prompts and images to inputs of SmolVLM and Idefics3, as their processor makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from PIL import Image
from torch import Tensor

from llava.model.conversation import IMAGE_MARKER, Template, Turn
from llava.model.processing.marked import MarkedProcessor, join_padded

PLACEHOLDER, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"

SMOLVLM = Template(
    name="smolvlm",
    opening="<|im_start|>",
    question=("User: ", "<end_of_utterance>\nAssistant:"),
    answer=(" ", "<end_of_utterance>\n"),
    stop="<end_of_utterance>",
    user="User",
    assistant="Assistant",
)
"""SmolVLM and Idefics3 (their chat template)."""


class SmolVLMProcessor(MarkedProcessor):
    """An image is cut into square tiles, each a run of `n_visual` placeholders behind its place; the whole image comes
    last."""

    family: ClassVar[str] = "smolvlm"
    placeholder: ClassVar[str] = PLACEHOLDER
    markers: ClassVar[tuple[str, ...]] = (AROUND, WHOLE)
    chat: ClassVar[Template] = SMOLVLM
    marker_end: ClassVar[str] = ""

    def prompt(self, text_or_turns: str | Sequence[Turn], n_images: int = 1, n_videos: int = 0) -> str:
        # The chat template puts no space before an image that opens a turn.
        return (
            super().prompt(text_or_turns, n_images, n_videos).replace(f"User: {IMAGE_MARKER}", f"User:{IMAGE_MARKER}")
        )

    def pictures(self, images: list[Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        made = self.images(images=[images], return_row_col_info=True, return_tensors="pt")
        grids = zip(made["rows"][0], made["cols"][0], strict=True)
        features = {name: made[name] for name in ("pixel_values", "pixel_attention_mask")}
        return features, [self._text(int(rows), int(columns)) for rows, columns in grids]

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        return join_padded(parts, axis=1)  # the model leaves out tiles of zeros

    def _text(self, rows: int, columns: int) -> str:
        tile = PLACEHOLDER * self.n_visual
        text = "".join(
            "".join(f"{AROUND}<row_{row}_col_{column}>{tile}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        )
        return text + ("\n" if rows else "") + AROUND + WHOLE + tile + AROUND


class Idefics3Processor(SmolVLMProcessor):
    """The same."""

    family: ClassVar[str] = "idefics3"
