"""Models with random weights of any size: what a prefill costs does not depend on what the weights know."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration

from llava.errors import BadInput


@dataclass(frozen=True)
class Shape:
    """Sizes of a text decoder: layers, width, heads, key/value heads, FFN width; and how images come to it.

    Args:
        next: the image is cut into tiles, as in LLaVA-NeXT.
        tower: vision tower, one of `TOWERS`; with a tiny one the decoder is all that counts.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    next: bool = False
    tower: str = "tiny"


SHAPES = {
    "small": Shape(16, 1024, 16, 16, 2752),
    "llava-1.5-7b": Shape(32, 4096, 32, 32, 11008),
    "llava-1.5-13b": Shape(40, 5120, 40, 40, 13824),
    "llava-next-7b": Shape(32, 4096, 32, 32, 11008, next=True, tower="clip-l"),
    "qwen2-vl-7b": Shape(28, 3584, 28, 4, 18944),
}
IMAGE_TOKEN, VOCABULARY, PATCH = 3, 512, 14
TOWERS = {
    "tiny": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1},
    "clip-l": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}
TILE = 336  # pixels, side of a tile


def named(name: str, layers: int | None = None, tower: str | None = None) -> Shape:
    """Return a shape by name, or its first `layers` layers, or with another tower.

    Raises:
        BadInput: there is no such shape or tower, or it has fewer layers.
    """
    if name not in SHAPES:
        raise BadInput(f"Unknown shape {name!r}. Known: {', '.join(SHAPES)}.")
    shape = SHAPES[name]
    if layers is not None and not 3 <= layers <= shape.layers:
        raise BadInput(f"--layers {layers}: give 3 to {shape.layers}, the layers of {name}.")
    if tower is not None and tower not in TOWERS:
        raise BadInput(f"Unknown tower {tower!r}. Known: {', '.join(TOWERS)}.")
    return replace(shape, layers=layers or shape.layers, tower=tower or shape.tower)


def random_model(
    shape: Shape, n_visual: int, dtype: torch.dtype, device: torch.device, attn_implementation: str
) -> Any:
    """A LLaVA of this size. One image gives the square number of visual tokens nearest to `n_visual`; a LLaVA-NeXT cuts
    a square image into as many tiles as come nearest.
    """
    if shape.next:
        kind, config = LlavaNextForConditionalGeneration, _next_config(shape, n_visual)
    else:
        kind, config = LlavaForConditionalGeneration, _config(shape, n_visual)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = kind._from_config(config, attn_implementation=attn_implementation)
    finally:
        torch.set_default_dtype(before)
    return model.to(device=device, dtype=dtype).eval()


def random_inputs(model: Any, n_before: int, n_after: int, batch: int = 1) -> dict[str, torch.Tensor]:
    """A prompt with one image between `n_before` and `n_after` text tokens, for each of `batch` samples."""
    generator = torch.Generator().manual_seed(0)
    n_visual = model.config.image_seq_length
    words = torch.randint(IMAGE_TOKEN + 1, VOCABULARY, (batch, n_before + n_after), generator=generator)
    image = torch.full((batch, n_visual), IMAGE_TOKEN)
    ids = torch.cat([words[:, :n_before], image, words[:, n_before:]], 1)
    side, tiles, more = model.config.vision_config.image_size, (), {}
    if isinstance(model, LlavaNextForConditionalGeneration):
        canvas = model.config.image_grid_pinpoints[0]
        tiles = (1 + (canvas[0] // side) ** 2,)
        more = {"image_sizes": torch.tensor([canvas] * batch, device=model.device)}
    pixels = torch.randn(batch, *tiles, 3, side, side, generator=generator)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
        **more,
    }


def _config(shape: Shape, n_visual: int) -> LlavaConfig:
    side = round(math.sqrt(n_visual))
    return LlavaConfig(
        vision_config=_tower(shape, side * PATCH),
        text_config=_text(shape, side * side),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=side * side,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _next_config(shape: Shape, n_visual: int) -> LlavaNextConfig:
    patches = TILE // PATCH
    across = max(1, round(math.sqrt(max(1, n_visual / patches**2 - 1))))
    length = patches**2 + across * patches * (across * patches + 1)  # every row of the crops ends with a newline
    return LlavaNextConfig(
        vision_config=_tower(shape, TILE),
        text_config=_text(shape, length),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=length,
        image_grid_pinpoints=[[across * TILE, across * TILE]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _tower(shape: Shape, image_size: int) -> dict[str, Any]:
    fixed = {"model_type": "clip_vision_model", "patch_size": PATCH, "projection_dim": 64}
    return {**fixed, "image_size": image_size, **TOWERS[shape.tower]}


def _text(shape: Shape, n_visual: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": n_visual + 4096,
    }
