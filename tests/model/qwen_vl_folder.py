"""Writes tiny random Qwen-VL checkpoints, tokenizer included, in the layouts of the hub (Qwen2-VL-7B-Instruct, ...)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

from tests.model.llava_folder import CLIP_MEAN, CLIP_STD, LINES

SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]
SECTIONS = [2, 1, 1]  # of half a head, for time, row and column
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "use_cache": True,
    "attention_dropout": 0.0,
}
VISION = {
    "qwen2_vl": {
        **{"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3},
        **{"patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2},
    },
    "qwen2_5_vl": {
        **{"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2},
        **{"in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 56},
        **{"fullatt_block_indexes": [1], "tokens_per_second": 2, "temporal_patch_size": 2, "hidden_act": "silu"},
    },
    "qwen3_vl": {
        **{"depth": 3, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2},
        **{"in_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2},
        **{"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2], "model_type": "qwen3_vl"},
    },
}


@cache
def _bpe() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES * 4, trainer)
    tokenizer.add_special_tokens([tokenizers.AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return tokenizer


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Write tokenizer.json, vocab.json, merges.txt and the config; return the ids of the special tokens."""
    tokenizer = _bpe()
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    ids = {word: tokenizer.token_to_id(word) for word in SPECIAL}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": word, **flags} for word, number in ids.items()},
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ids


def write_checkpoint(folder: Path, kind: str = "qwen2_vl", **preprocessor: Any) -> Path:
    """Write a complete checkpoint folder, float16, and return it; further words change preprocessor_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(folder)
    config = _config(kind, ids, len(_bpe().get_vocab()))
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model_class = getattr(transformers, CLASSES[kind])
    model = model_class(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    weights = {_hub_name(name, kind): weight.half().contiguous() for name, weight in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    patch = VISION[kind]["patch_size"]
    limits = {"min_pixels": 3136, "max_pixels": 12845056}
    if kind == "qwen3_vl":
        limits = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    settings = {
        **{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": patch, "temporal_patch_size": 2},
        **{"merge_size": 2, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, **limits, **preprocessor},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    stops = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    generation = {"eos_token_id": stops, "pad_token_id": stops[1], "do_sample": True, "temperature": 0.01, "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def _config(kind: str, ids: dict[str, int], n_tokens: int) -> dict[str, Any]:
    rope = {"type": "mrope", "mrope_section": SECTIONS}
    text = {**TEXT, "vocab_size": -(-n_tokens // 64) * 64, "bos_token_id": ids["<|endoftext|>"]}
    text["eos_token_id"] = ids["<|im_end|>"]
    shared = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": kind == "qwen2_5_vl",
        "vision_config": VISION[kind],
    }
    if kind == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_section": SECTIONS, "mrope_interleaved": True}
        return {**shared, "text_config": {**text, "head_dim": 8, "rope_scaling": rope, "model_type": "qwen3_vl_text"}}
    window = {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 4}
    return {**shared, **text, **window, "rope_scaling": rope, "torch_dtype": "float16"}


def _hub_name(name: str, kind: str) -> str:
    """The name of a weight in the hub's files."""
    if kind == "qwen3_vl":
        return name
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
