"""Writes a tiny random LLaVA-1.5 checkpoint, tokenizer included, in the layout of llava-hf/llava-1.5-7b-hf."""

import io
import json
from functools import cache
from pathlib import Path

import sentencepiece
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
SIDE, PATCH = 28, 14  # pixels: 4 visual tokens

LINES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:",
    "Is there a red circle in the image? Answer the question using a single word or phrase.",
    "What is written on the sign? How many blue squares are there? yes no left right of the",
    "".join(map(chr, range(33, 127))),
]


@cache
def sentencepiece_model() -> bytes:
    """Return a model trained with Llama's options (BPE, byte fallback, no normalisation, dummy prefix)."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 4),
        model_writer=out,
        model_type="bpe",
        vocab_size=440,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def official_ids(text: str) -> list[int]:
    """Tokenise one text as the official tokenizer does: SentencePiece itself, no special tokens."""
    return sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model()).encode(text)


def write_tokenizer(folder: Path) -> int:
    """Write tokenizer.model with its config; return the id of `<image>` (`<pad>` is the next one)."""
    size = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model()).vocab_size()
    added = {
        str(size + i): {
            "content": content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, content in enumerate(("<image>", "<pad>"))
    }
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "padding_side": "left",
        "added_tokens_decoder": added,
    }
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return size


def write_checkpoint(folder: Path, *, dtype: torch.dtype = torch.float16, shard_size: str | None = None) -> Path:
    """Write a complete checkpoint folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    image_id = write_tokenizer(folder)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "projection_dim": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": -(-(image_id + 2) // 64) * 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        image_token_index=image_id,
        pad_token_id=image_id + 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
