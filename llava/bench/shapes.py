"""Models with random weights of a given shape, and prompts for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration

from llava.bench import sizes
from llava.bench.sizes import PATCH, SHAPES, TOWERS, Shape, named

__all__ = ["IMAGE_TOKEN", "SHAPES", "TOWERS", "VOCABULARY", "Shape", "named", "random_inputs", "random_model"]

IMAGE_TOKEN, VOCABULARY = 3, 512
SPARE_POSITIONS = 4096  # for text and generated tokens


def random_model(
    shape: Shape, n_visual: int, dtype: torch.dtype, device: torch.device, attn_implementation: str
) -> Any:
    """A LLaVA of this size whose images have about `n_visual` tokens (`sizes.visual_tokens`)."""
    kind: Any
    config: Any
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
    side = model.config.vision_config.image_size
    tiles: tuple[int, ...] = ()
    more = {}
    if isinstance(model, LlavaNextForConditionalGeneration):
        grid: Any = model.config.image_grid_pinpoints
        canvas = grid[0]
        tiles = (1 + (canvas[0] // side) ** 2,)
        more = {"image_sizes": torch.tensor([canvas] * batch, device=model.device)}
    pixels = torch.randn(batch, *tiles, 3, side, side, generator=generator)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
        **more,
    }


def _config(shape: Shape, wanted: int) -> LlavaConfig:
    length = sizes.visual_tokens(shape, wanted)
    return LlavaConfig(
        vision_config=_tower(shape, math.isqrt(length) * PATCH),
        text_config=_text(shape, length),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=length,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _next_config(shape: Shape, wanted: int) -> LlavaNextConfig:
    length, side = sizes.visual_tokens(shape, wanted), sizes.tiles_across(wanted) * sizes.TILE
    return LlavaNextConfig(
        vision_config=_tower(shape, sizes.TILE),
        text_config=_text(shape, length),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=length,
        image_grid_pinpoints=[[side, side]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _tower(shape: Shape, image_size: int) -> dict[str, Any]:
    tower = TOWERS[shape.tower]
    return {
        "model_type": "clip_vision_model",
        "patch_size": PATCH,
        "projection_dim": 64,  # of CLIP's own head, which is not used
        "image_size": image_size,
        "hidden_size": tower.width,
        "intermediate_size": tower.ffn,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
    }


def _text(shape: Shape, n_visual: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": n_visual + SPARE_POSITIONS,
    }
