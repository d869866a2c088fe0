"""Writes tiny random checkpoints of families in transformers' format, tokenizer and image settings as published."""

import json
from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL = {
    "llava_onevision": [*CHATML, "<image>", "<video>"],
    "internvl": [*CHATML, "<img>", "</img>", "<IMG_CONTEXT>"],
    "smolvlm": ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>"]
    + ["<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))],
    "gemma3": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    + ["<start_of_image>", "<image_soft_token>", "<end_of_image>"],
}
SPECIAL["idefics3"] = SPECIAL["smolvlm"]
ENDS = {"smolvlm": "<end_of_utterance>", "idefics3": "<end_of_utterance>", "gemma3": "<eos>"}
PADS = {"gemma3": "<pad>"}
LINES = ["user assistant model User Assistant\n", "Is there a red circle in the image? yes no left", "What is written?"]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True, "do_rescale": True, "do_resize": True}
PREPROCESSORS = {
    "llava_onevision": {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": [[12, 24], [24, 12], [24, 24], [12, 36], [36, 12], [36, 36]],
        "size": {"height": 12, "width": 12},
        "do_pad": True,
        **HALF,
    },
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 12,
        "size": {"height": 12, "width": 12},
        **HALF,
    },
    "smolvlm": {
        "image_processor_type": "SmolVLMImageProcessor",
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": 12},
        "size": {"longest_edge": 24},
        "do_pad": True,
        **HALF,
    },
    "gemma3": {
        "image_processor_type": "Gemma3ImageProcessor",
        "do_pan_and_scan": None,
        "image_seq_length": 4,
        "size": {"height": 12, "width": 12},
        **HALF,
    },
}
PREPROCESSORS["idefics3"] = {**PREPROCESSORS["smolvlm"], "image_processor_type": "Idefics3ImageProcessor"}


@cache
def tokenizer(family: str) -> Tokenizer:
    """Return a small byte-level BPE tokenizer with the family's special tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(SPECIAL[family])
    return made


def _model(family: str):
    ids = tokenizer(family).get_vocab()
    text = {**TEXT, "vocab_size": len(ids), "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    if family == "llava_onevision":
        return transformers.LlavaOnevisionForConditionalGeneration, transformers.LlavaOnevisionConfig(
            vision_config={
                **TOWER,
                "model_type": "siglip_vision_model",
                "image_size": 12,
                "patch_size": 3,
                "vision_use_head": False,
            },
            text_config={**text, "model_type": "qwen2"},
            image_token_id=ids["<image>"],
            video_token_id=ids["<video>"],
            image_grid_pinpoints=PREPROCESSORS[family]["image_grid_pinpoints"],
            vision_feature_layer=-1,
        )
    if family == "internvl":
        return transformers.InternVLForConditionalGeneration, transformers.InternVLConfig(
            vision_config={**TOWER, "image_size": [12, 12], "patch_size": [3, 3]},
            text_config={**text, "model_type": "qwen2"},
            image_token_id=ids["<IMG_CONTEXT>"],
            image_seq_length=4,
        )
    if family in ("smolvlm", "idefics3"):
        kind = {"smolvlm": "SmolVLM", "idefics3": "Idefics3"}[family]
        return getattr(transformers, f"{kind}ForConditionalGeneration"), getattr(transformers, f"{kind}Config")(
            vision_config={**TOWER, "image_size": 12, "patch_size": 3},
            text_config={**text, "model_type": "llama"},
            image_token_id=ids["<image>"],
            scale_factor=2,
        )
    return transformers.Gemma3ForConditionalGeneration, transformers.Gemma3Config(
        vision_config={**TOWER, "image_size": 12, "patch_size": 3},
        text_config={
            **text,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
        image_token_id=ids["<image_soft_token>"],
        boi_token_id=ids["<start_of_image>"],
        eoi_token_id=ids["<end_of_image>"],
        mm_tokens_per_image=4,
    )


def write_checkpoint(folder: Path, family: str) -> Path:
    """Write a complete checkpoint folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model_class, config = _model(family)
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15)
    model.save_pretrained(folder)
    tokenizer(family).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": ENDS.get(family, "<|im_end|>"),
        "pad_token": PADS.get(family, "<|endoftext|>"),
        "padding_side": "left",
    }
    if family == "gemma3":
        names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
        settings |= {"bos_token": "<bos>", "extra_special_tokens": names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[family]))
    return folder
