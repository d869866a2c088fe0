"""LLaVA's original checkpoints (liuhaotian/llava-v1.5-7b, -v1.6-vicuna-7b, ...) in transformers' form.

Language model and projector lie in the checkpoint's shards, under the names of `LlavaLlamaForCausalLM`. The vision
tower lies there too where it was fine-tuned; else `mm_vision_tower` says which CLIP model it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava.errors import CheckpointError
from llava.model.checkpoints import some
from llava.model.clip_tower import Tower, find_tower
from llava.model.families.base import Original
from llava.model.tiling import pairs
from llava.model.weights import read_weights

IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"
ROWS_MULTIPLE = (
    64  # the vocabulary grows by the two tokens, and to a whole number of these, as in converted checkpoints
)
DECODERS = {"LlavaLlamaForCausalLM": "llama", "LlavaMistralForCausalLM": "mistral"}
BUNDLED = "model.vision_tower.vision_tower."
FORWARD = (
    (BUNDLED, "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)
"""Prefixes of original names -> those of converted files; the first that fits counts."""
BACKWARD = (
    ("model.language_model.", "model."),
    ("model.vision_tower.vision_model.", f"{BUNDLED}vision_model."),
    ("model.vision_tower.", f"{BUNDLED}vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
)
"""Prefixes of the loaded model's names -> original names."""
IGNORED = (".inv_freq", ".position_ids")  # buffers that old versions saved, and that are computed now
NULLABLE = ("sliding_window",)  # no value means none here, and not transformers' default
GROWING = ("model.embed_tokens.weight", "lm_head.weight")


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of LLaVA's own format; where its `model_type` is "llava", the tower's field decides."""
    return "mm_vision_tower" in config or str(config.get("model_type")) in ("llava_llama", "llava_mistral")


def is_tiled(config: Mapping[str, Any]) -> bool:
    """Whether images are cut into tiles, as LLaVA-NeXT (1.6) does."""
    return config.get("image_aspect_ratio") == "anyres"


def check_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what transformers' LLaVA classes cannot express.

    Raises:
        CheckpointError: names every such setting.
    """
    merge = ("spatial_unpad",) if is_tiled(config) else ("flat", None)
    allowed: dict[str, tuple[Any, ...]] = {
        "image_aspect_ratio": ("anyres", "pad"),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_patch_merge_type": merge,
        "mm_vision_select_feature": ("patch", None),
        "mm_use_im_start_end": (False, None),
        "mm_use_im_patch_token": (False, None),
    }
    found = [
        f"{name} {config.get(name)!r} (read are: {', '.join(repr(value) for value in values if value is not None)})"
        for name, values in allowed.items()
        if config.get(name) not in values
    ]
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in DECODERS:
        found.insert(0, f"architecture {architecture!r} (read are: {', '.join(DECODERS)})")
    if found:
        raise CheckpointError(
            f"{folder} is in LLaVA's original format with settings that cannot be read: {some(found)}."
        )


def add_tokens(tokenizer: Any) -> Any:
    """Give the tokenizer what converted checkpoints have: a placeholder for images and a token for padding."""
    from transformers import AddedToken

    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": AddedToken(PAD_TOKEN, special=True, normalized=False)})
    tokenizer.padding_side = "left"
    return tokenizer


def read_original(folder: Path, config: Mapping[str, Any], tokenizer: Any) -> Original:
    """Return configuration and weights of an original checkpoint for transformers' class.

    Args:
        folder: the checkpoint.
        config: its config.json.
        tokenizer: with the tokens of `add_tokens`.

    Raises:
        CheckpointError: unreadable settings, missing or damaged files, the vision tower is nowhere, or weights that
            have no place or are missing.
    """
    check_settings(folder, config)
    weights = {key: value for key, value in read_weights(folder).items() if not key.endswith(IGNORED)}
    bundled = any(key.startswith(BUNDLED) for key in weights)
    tower = find_tower(folder, config, with_weights=not bundled)
    if not bundled:
        weights.update({f"{BUNDLED}{key}": value for key, value in tower.weights().items()})
    rows = -(-max(config.get("vocab_size", 0), len(tokenizer)) // ROWS_MULTIPLE) * ROWS_MULTIPLE
    for name in GROWING:
        if name in weights:
            weights[name] = _grown(weights[name], rows)
    mapped = {_converted_name(key): value for key, value in weights.items()}
    return Original(_configuration(folder, config, tower, tokenizer, rows), mapped, BACKWARD)


def _converted_name(key: str) -> str:
    for original, converted in FORWARD:
        if key.startswith(original):
            return converted + key.removeprefix(original)
    return key  # has no place: transformers reports it as unexpected


def _grown(rows: Tensor, n_rows: int) -> Tensor:
    """(V, D) -> (n_rows, D); new rows are the mean of the old ones, so that greedy decoding never takes a new token."""
    if rows.ndim != 2 or len(rows) >= n_rows:
        return rows
    mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
    return torch.cat([rows, mean.expand(n_rows - len(rows), -1)])


def _configuration(folder: Path, config: Mapping[str, Any], tower: Tower, tokenizer: Any, rows: int) -> Any:
    from transformers import CONFIG_MAPPING, LlavaConfig, LlavaNextConfig

    decoder = CONFIG_MAPPING[DECODERS[config["architectures"][0]]]
    known = {*decoder().to_dict(), "rope_theta", "rope_scaling"} - {"architectures", "model_type", "_name_or_path"}
    text = decoder(**{**_chosen(config, known), "vocab_size": rows})
    arguments: dict[str, Any] = {
        "vision_config": tower.config,
        "text_config": text,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "pad_token_id": tokenizer.pad_token_id,
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "dtype": config.get("torch_dtype") or config.get("dtype"),
    }
    if not is_tiled(config):
        return LlavaConfig(**arguments)
    sizes = pairs(folder, config.get("image_grid_pinpoints"))
    return LlavaNextConfig(**arguments, image_grid_pinpoints=[[height, width] for width, height in sizes])


def _chosen(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: config[name] for name in names if name in config and (config[name] is not None or name in NULLABLE)}
