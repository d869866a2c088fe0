"""Batches of images and videos for the tiny checkpoints of Qwen-VL and Video-LLaVA, and where their tokens stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import llava
from tests.model import qwen_vl_folder, video_llava_folder

KINDS = (*qwen_vl_folder.KINDS, "video_llava")
QUESTIONS = ("Is there a red circle in the image?", "What is left of the sign?", "How many blue squares?")


def write(folder: Path, kind: str) -> Path:
    """Write the tiny checkpoint of a kind."""
    if kind == "video_llava":
        return video_llava_folder.write_checkpoint(folder)
    return qwen_vl_folder.write_checkpoint(folder, kind)


def load(folder: Path, kernel: str = "sdpa") -> tuple[Any, Any]:
    """Load by path; Qwen's pictures and films are kept small."""
    model, processor = llava.load(folder, device="cpu", attn_implementation=kernel)
    if processor.family != "video_llava":
        processor.configure(min_pixels=1024)
        processor.video = replace(processor.video, smallest=1)
    return model, processor


def picture(width: int = 112, height: int = 84, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def film(n_frames: int = 6, side: int = 64, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, side, side, 3), dtype=np.uint8)


SAMPLES: tuple[tuple[list[Image.Image], list[np.ndarray]], ...] = (
    ([picture()], []),
    ([picture(seed=1), picture(84, 140, seed=2)], [film()]),
    ([], []),
)
"""One image; two images of different sizes and a video; text only."""


def batch_of(processor: Any, rows: tuple[int, ...] = (0, 1, 2)) -> dict[str, Tensor]:
    """Return the inputs of some samples."""
    images, videos = ([SAMPLES[row][part] for row in rows] for part in (0, 1))
    prompts = [processor.prompt(QUESTIONS[row], *map(len, SAMPLES[row])) for row in rows]
    return dict(processor(prompts, images, videos))


def items(processor: Any, batch: dict[str, Tensor]) -> list[list[Tensor]]:
    """Per sample and image or video: the prompt columns of its visual tokens, worked out from runs of ids alone.

    In these batches every run is an item; only the frames of Qwen3-VL's video belong together.
    """
    found: list[list[Tensor]] = []
    for ids in batch["input_ids"].tolist():
        own: list[list[int]] = []
        for column, token in enumerate(ids):
            if token not in processor.placeholders:
                continue
            stamped = processor.family == "qwen3_vl" and token == processor.placeholders[1]
            same = own and ids[own[-1][-1]] == token
            if same and (own[-1][-1] == column - 1 or stamped):
                own[-1].append(column)
            else:
                own.append([column])
        found.append([torch.tensor(columns) for columns in own])
    return found


def alive_columns(processor: Any, batch: dict[str, Tensor], indices: list[list[Tensor]]) -> Tensor:
    """(B, N) bool: text, and of every item the tokens at the given offsets."""
    visual = torch.isin(batch["input_ids"], torch.tensor(processor.placeholders))
    alive = batch["attention_mask"].bool() & ~visual
    for row, (own, kept) in enumerate(zip(items(processor, batch), indices, strict=True)):
        for columns, offsets in zip(own, kept, strict=True):
            alive[row, columns[offsets]] = True
    return alive


def with_tokens(batch: dict[str, Tensor], new: Tensor) -> dict[str, Tensor]:
    """The batch with generated tokens appended to the prompts."""
    longer = {name: torch.cat([batch[name], new], dim=1) for name in ("input_ids",)}
    for name, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in batch:
            longer[name] = torch.nn.functional.pad(batch[name], (0, new.shape[1]), value=filler)
    return {**batch, **longer}
