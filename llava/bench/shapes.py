"""Models with random weights of any size: what a prefill costs does not depend on what the weights know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from llava.errors import BadInput


@dataclass(frozen=True)
class Shape:
    """Sizes of a text decoder: layers, width, heads, key/value heads, FFN width."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int


SHAPES = {
    "small": Shape(16, 1024, 16, 16, 2752),
    "llava-1.5-7b": Shape(32, 4096, 32, 32, 11008),
    "llava-1.5-13b": Shape(40, 5120, 40, 40, 13824),
    "qwen2-vl-7b": Shape(28, 3584, 28, 4, 18944),
}
IMAGE_TOKEN, VOCABULARY, PATCH = 3, 512, 14


def named(name: str) -> Shape:
    if name not in SHAPES:
        raise BadInput(f"Unknown shape {name!r}. Known: {', '.join(SHAPES)}.")
    return SHAPES[name]


def random_model(
    shape: Shape, n_visual: int, dtype: torch.dtype, device: torch.device, attn_implementation: str
) -> LlavaForConditionalGeneration:
    """A LLaVA of this decoder size whose tower is so small that the decoder is all that counts.

    One image gives the square number of visual tokens nearest to `n_visual`.
    """
    side = round(math.sqrt(n_visual))
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": side * PATCH,
        "patch_size": PATCH,
        "projection_dim": 64,
    }
    text = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": side * side + 4096,
    }
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        image_seq_length=side * side,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attn_implementation)
    finally:
        torch.set_default_dtype(before)
    return model.to(device=device, dtype=dtype).eval()


def random_inputs(
    model: LlavaForConditionalGeneration, n_before: int, n_after: int, batch: int = 1
) -> dict[str, torch.Tensor]:
    """A prompt with one image between `n_before` and `n_after` text tokens, for each of `batch` samples."""
    generator = torch.Generator().manual_seed(0)
    n_visual = model.config.image_seq_length
    words = torch.randint(IMAGE_TOKEN + 1, VOCABULARY, (batch, n_before + n_after), generator=generator)
    image = torch.full((batch, n_visual), IMAGE_TOKEN)
    ids = torch.cat([words[:, :n_before], image, words[:, n_before:]], 1)
    size = model.config.vision_config.image_size
    pixels = torch.randn(batch, 3, size, size, generator=generator)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
    }
