"""Who answers what in `bench pipeline`: a checkpoint and a benchmark's questions, or random weights and questions."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava.bench import shapes
from llava.bench.options import TEXT
from llava.bench.pipeline_parts import Subject
from llava.errors import BadInput
from llava.eval.batches import by_image
from llava.eval.benchmarks.base import Question

N_AFTER = 25
"""Text tokens after the image: a short question. The rest of `TEXT` stands before it: LLaVA's system sentence."""
EMBEDDED = "embedded"
SIDE = 8
"""Of the picture files of a random model; their pixels are random numbers anyway."""


def checkpoint(
    model_path: str | None,
    benchmark: str,
    data: str | None,
    n_images: int,
    dtype: str | None,
    device: str | None,
    attention: str,
) -> Subject:
    """Load a checkpoint, and the questions about a benchmark's first images, each with all of its questions.

    Raises:
        LlavaError: the checkpoint or the data cannot be used.
    """
    import llava
    from llava.eval import benchmarks
    from llava.eval import data as datasets

    located = datasets.locate(benchmarks.get(benchmark), data)
    source = None if model_path == EMBEDDED else model_path
    model, processor = llava.load(source, device=device, dtype=dtype, attn_implementation=attention)
    (questions,) = datasets.load_questions([located], processor.family, None, False)
    places = sorted(place for group in by_image(questions)[:n_images] for place in group)
    return Subject(model, processor, [questions[place] for place in places], located.benchmark.max_new_tokens)


def random_weights(
    shape: str,
    layers: int | None,
    n_visual: int,
    n_images: int,
    n_questions: int,
    n_new: int,
    dtype: str | None,
    device: str | None,
    attention: str,
    folder: Path,
) -> Subject:
    """Build a model with random weights, and random questions about random images.

    Args:
        folder: where small picture files are written, so that opening them is part of a question.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = getattr(torch, dtype or ("bfloat16" if where.type == "cuda" else "float32"), None)
    if not isinstance(kind, torch.dtype):
        raise BadInput(f"Unknown dtype {dtype!r}: use float32, float16 or bfloat16.")
    model = shapes.random_model(shapes.named(shape, layers), n_visual, kind, where, attention)
    model.generation_config.eos_token_id = None
    questions = []
    for image in range(n_images):
        path = folder / f"{image}.png"
        Image.new("RGB", (SIDE, SIDE), (image % 256, image // 256, 0)).save(path)
        questions += [
            Question(f"{image}-{number}", path, "", str(number), "default", path.name) for number in range(n_questions)
        ]
    return Subject(model, RandomProcessor(model), questions, n_new)


class RandomProcessor:
    """Random text around a random image; the same question always has the same words, the same file the same pixels."""

    lengths_vary = False
    family = "random"

    def __init__(self, model: Any):
        self.inputs = shapes.random_inputs(model, TEXT - N_AFTER, N_AFTER)
        self.placeholder = model.config.image_token_id
        self._pixels: dict[int, tuple[weakref.ref, Tensor]] = {}

    def prompt(self, text: str) -> str:
        return text

    def look_at(self, image: Image.Image) -> None:
        key = id(image)
        self._pixels[key] = (weakref.ref(image, lambda _: self._pixels.pop(key, None)), self._made(image))

    def __call__(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        like = self.inputs
        ids = like["input_ids"].repeat(len(prompts), 1)
        for row, prompt in zip(ids, prompts, strict=True):
            generator = torch.Generator().manual_seed(1 + int(prompt))
            words = torch.randint(shapes.IMAGE_TOKEN + 1, shapes.VOCABULARY, (N_AFTER,), generator=generator)
            row[-N_AFTER:] = words.to(row.device)
        pixels = [self._looked_at(own[0]) for own in images]
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.cat(pixels)}
        if "image_sizes" in like:
            batch["image_sizes"] = like["image_sizes"].repeat(len(prompts), 1)
        return batch

    def decode(self, ids: Tensor) -> list[str]:
        return [" ".join(map(str, row)) for row in ids.tolist()]

    def _looked_at(self, image: Image.Image) -> Tensor:
        known = self._pixels.get(id(image))
        return known[1] if known is not None and known[0]() is image else self._made(image)

    def _made(self, image: Image.Image) -> Tensor:
        pixel: Any = image.getpixel((0, 0))
        red, green = pixel[:2]
        like = self.inputs["pixel_values"]
        generator = torch.Generator().manual_seed(red + 256 * green)
        return torch.randn(like.shape, generator=generator).to(like)
