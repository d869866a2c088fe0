"""Writes a tiny random Video-LLaVA checkpoint, tokenizer included, in the layout of LanguageBind/Video-LLaVA-7B-hf."""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file

from tests.model.llava_folder import CLIP_MEAN, CLIP_STD, sentencepiece_model

SIDE, PATCH, FRAMES = 28, 14, 8
IMAGE_TOKENS, VIDEO_TOKENS = 4, FRAMES * 5  # a frame has its class token too
ADDED = ("<image>", "<video>", "<pad>")
HUB_NAMES = (
    ("model.image_tower.", "image_tower.vision_model."),
    ("model.video_tower.", "video_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def write_tokenizer(folder: Path) -> list[int]:
    """Write tokenizer.model with its config; return the ids of `<image>`, `<video>` and `<pad>`."""
    first = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model()).vocab_size()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "padding_side": "left",
        "added_tokens_decoder": {str(first + i): {"content": word, **flags} for i, word in enumerate(ADDED)},
    }
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return [first + i for i in range(len(ADDED))]


def write_checkpoint(folder: Path) -> Path:
    """Write a complete checkpoint folder, float16, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    image_id, video_id, pad_id = write_tokenizer(folder)
    tower = {
        **{"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3},
        **{"num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH, "projection_dim": 16},
    }
    text = {
        **{"model_type": "llama", "vocab_size": -(-(pad_id + 1) // 64) * 64, "hidden_size": 32},
        **{"intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2},
    }
    config = {
        "architectures": ["VideoLlavaForConditionalGeneration"],
        "model_type": "video_llava",
        "image_token_index": image_id,
        "video_token_index": video_id,
        "pad_token_id": pad_id,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_seq_length": IMAGE_TOKENS,
        "video_seq_length": VIDEO_TOKENS,
        "text_config": text,
        "vision_config": tower,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = transformers.VideoLlavaForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    weights = {_hub_name(name): weight.half().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    preprocessor = {
        **{"image_processor_type": "VideoLlavaImageProcessor", "size": {"shortest_edge": SIDE}, "resample": 3},
        **{"crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True},
        **{"image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def _hub_name(name: str) -> str:
    """The name of a weight in the hub's files."""
    for loaded, written in HUB_NAMES:
        if name.startswith(loaded):
            return written + name.removeprefix(loaded).removeprefix("vision_model.")
    return name
