"""Writes tiny random LLaVA-1.5 and LLaVA-NeXT checkpoints, tokenizer included, laid out as llava-hf's folders."""

import io
import json
from functools import cache
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
SIDE, PATCH = 28, 14  # pixels: 4 visual tokens
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]  # in the order of the published list
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
LINES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:",
    "Is there a red circle in the image? Answer the question using a single word or phrase.",
    "What is written on the sign? How many blue squares are there? yes no left right of the",
    "".join(map(chr, range(33, 127))),
]
LLAMA_3_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


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


def write_tokenizer(folder: Path, *, converted: bool = True) -> int:
    """Write tokenizer.model with its config; return the size of its vocabulary without added tokens.

    Converted folders add `<image>` (the id returned) and `<pad>` (the next one); original ones pad with `<unk>`.
    """
    size = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model()).vocab_size()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "padding_side": "right",
    }
    if converted:
        added = {str(size + i): special(content) for i, content in enumerate(("<image>", "<pad>"))}
        settings |= {"pad_token": "<pad>", "padding_side": "left", "added_tokens_decoder": added}
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return size


def write_llama_3_tokenizer(folder: Path, *, converted: bool = True) -> int:
    """Write a byte-level tokenizer.json with Llama 3's special tokens; see `write_tokenizer`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in LLAMA_3_TOKENS])
    begin = LLAMA_3_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    size = tokenizer.get_vocab_size()
    if converted:
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<image>", "<pad>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": "<|eot_id|>",
        **({"pad_token": "<pad>"} if converted else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return size


TOKENIZERS = {"llama": write_tokenizer, "mistral": write_tokenizer, "llama-3": write_llama_3_tokenizer}


def special(content: str) -> dict:
    """Describe an added token as tokenizer_config.json does."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **flags, "special": True}


def write_checkpoint(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    shard_size: str | None = None,
    tiled: bool = False,
    decoder: str = "llama",
) -> Path:
    """Write a complete checkpoint folder and return it.

    Args:
        shard_size: largest weight file, as transformers says it; None writes one file.
        tiled: LLaVA-NeXT instead of LLaVA-1.5.
        decoder: "llama", "mistral", or "llama-3", whose tokenizer is another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image_id = TOKENIZERS[decoder](folder)
    text = {"model_type": "mistral" if decoder == "mistral" else "llama", **TEXT, "bos_token_id": 1, "eos_token_id": 2}
    if decoder == "mistral":
        text["sliding_window"] = None
    config_class, model_class = (LlavaConfig, LlavaForConditionalGeneration)
    if tiled:
        config_class, model_class = (LlavaNextConfig, LlavaNextForConditionalGeneration)
    config = config_class(
        vision_config=VISION,
        text_config={**text, "vocab_size": -(-(image_id + 2) // 64) * 64},
        image_token_index=image_id,
        pad_token_id=image_id + 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        **({"image_grid_pinpoints": PINPOINTS} if tiled else {}),
    )
    torch.manual_seed(0)
    model = model_class(config).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
            elif tiled and weight is model.model.image_newline:
                weight.normal_()
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder
