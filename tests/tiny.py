"""Tiny vision-language models with random weights and hand-made prompts; no processor, no tokenizer, no files."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers

IMAGE, PAD, VOCABULARY = 99, 0, 128
N_LAYERS, N_PATCHES, SIDE = 6, 16, 24
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 6,
    "projection_dim": 32,
}
# Three samples: one image, three images (two side by side), text only. An integer is a stretch of text.
MIXED = ((5, IMAGE, 7), (4, IMAGE, IMAGE, 3, IMAGE, 6), (9,))
ONE = ((5, IMAGE, 7),)


def llava(kind: str = "llama", tower: dict[str, Any] | None = None, **text: Any) -> Any:
    """Build LLaVA-1.5 with a text model of one of transformers' kinds; `tower` changes the vision tower."""
    return transformers.LlavaForConditionalGeneration, transformers.LlavaConfig(
        vision_config={**TOWER, **(tower or {})},
        text_config={"model_type": kind, **TEXT, **text},
        image_token_id=IMAGE,
        image_seq_length=N_PATCHES,
        vision_feature_layer=-2,
    )


FAMILIES = {
    "llava": llava,
    "llava-mistral": functools.partial(llava, "mistral", sliding_window=None),
    "llava-qwen2": functools.partial(llava, "qwen2"),
    "llava-qwen3": functools.partial(llava, "qwen3", head_dim=16),
}


def build(family: str = "llava", attention: str = "sdpa", **text: Any) -> Any:
    """Return a model in eval mode, float32, the same weights every time."""
    torch.manual_seed(0)
    model_class, config = FAMILIES[family](**text)
    model = model_class._from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:  # the default 0.02 makes all tokens nearly alike
            torch.nn.init.normal_(parameter, std=0.12)
    return model


def inputs(samples: tuple = MIXED, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return left-padded input_ids, attention_mask and random pixel_values."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.cat([_segment(part, generator) for part in sample]) for sample in samples]
    longest = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=PAD) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    n_images = sum(part == IMAGE for sample in samples for part in sample)
    batch = {"input_ids": ids, "attention_mask": mask}
    if n_images:
        batch["pixel_values"] = torch.randn(n_images, 3, SIDE, SIDE, generator=generator)
    return batch


def alone(batch: dict[str, torch.Tensor], samples: tuple = MIXED) -> list[dict[str, torch.Tensor]]:
    """Return every sample of a batch as a batch of its own, without padding."""
    singles, seen = [], 0
    for row, sample in enumerate(samples):
        real = batch["attention_mask"][row].bool()
        single = {name: batch[name][row : row + 1, real] for name in ("input_ids", "attention_mask")}
        n_images = sum(part == IMAGE for part in sample)
        if n_images:
            single["pixel_values"] = batch["pixel_values"][seen : seen + n_images]
        seen += n_images
        singles.append(single)
    return singles


def generate(model: Any, batch: dict[str, torch.Tensor], n_new: int = 5, **options: Any) -> Any:
    """Generate greedily; the result has `sequences` and one `logits` tensor per new token."""
    return model.generate(
        **batch,
        max_new_tokens=n_new,
        min_new_tokens=n_new,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


def embedded(model: Any, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return input embeddings of prompts with (T, D) features at the placeholders, in order."""
    embeds = model.get_input_embeddings()(ids)
    return embeds.masked_scatter((ids == IMAGE)[..., None], features.to(embeds))


def static_cache(model: Any, lengths: int | list[int]) -> transformers.StaticCache:
    """Return a static cache with one length for all layers, or one per layer."""
    config = model.config.get_text_config()
    cache = transformers.StaticCache(config, max_cache_len=lengths if isinstance(lengths, int) else max(lengths))
    if not isinstance(lengths, int):
        for layer, length in zip(cache.layers, lengths, strict=True):
            layer.max_cache_len = length
    return cache


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference."""
    return float((a - b).abs().max())


def _segment(part: int, generator: torch.Generator) -> torch.Tensor:
    if part == IMAGE:
        return torch.full((N_PATCHES,), IMAGE)
    return torch.randint(10, IMAGE, (part,), generator=generator)
