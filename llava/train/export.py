"""Write trained weights as an ordinary LLaVA-1.5 folder of the Hugging Face layout, with a card of its accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessor, GenerationConfig, LlavaForConditionalGeneration

from .nano import CLIP_MEAN, CLIP_STD, IMAGE_SIZE, PATCH

HEADS = "dense_heads.safetensors"  # training only; lies in folders a training starts from, never in the shipped one


def export(model: LlavaForConditionalGeneration, folder: Path, log: list[dict], card: dict) -> None:
    """Write bf16 safetensors, configs, `training_log.json` and `README.md` beside the tokenizer in `folder`.

    Args:
        log: rows of the trainer's log.
        card: accuracies by kind, with image and blank, and how they were measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.bfloat16()
    # Nothing reads the tower's last block, so it never learned; methods that look at its attention find a trained one.
    blocks = model.model.vision_tower.encoder.layers
    blocks[-1].load_state_dict(blocks[-2].state_dict())
    text: Any = model.config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    model.save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=size, image_mean=CLIP_MEAN, image_std=CLIP_STD
    ).save_pretrained(folder)
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": model.config.vision_feature_select_strategy,
        "image_token": "<image>",
    }
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    (folder / "training_log.json").write_text(
        "[\n" + ",\n".join(json.dumps(row) for row in log) + "\n]\n", encoding="utf-8"
    )
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card_text(card), encoding="utf-8")


def card_text(card: dict) -> str:
    """The model card in Markdown: what the model is, how it was trained, accuracy with and without the image."""
    rows = "\n".join(
        f"| {kind} | {100 * with_image:.1f} | {100 * card['blank'][kind][0]:.1f} | {n} |"
        for kind, (with_image, n) in card["accuracy"].items()
    )
    training, millions = card["training"], f"{card['parameters'] / 1e6:.1f}"
    return f"""# llava-nano

A LLaVA-1.5 small enough to ship ({millions} M parameters): CLIP ViT 336/14 (576 visual tokens, feature layer -2),
two-layer GELU projector, Llama decoder of {card["decoder_layers"]} layers, SentencePiece tokenizer, `vicuna_v1` prompt.
It knows one world only: coloured shapes and a printed sign on textured backgrounds (`llava/train/`). Its last
training stages saw all visual tokens of full images, never a pruned prompt.

Trained from scratch in {training["hours"]:.2f} hours on {training["hardware"]}: {training["images"]:,} images, each
with several questions; `training_log.json` has every row. Reproduce: `python -m llava.train run`.

Exact answers on {card["images"]} held-out full images (the shipped bfloat16 weights, computed in {card["dtype"]}), and
the same questions with the image blanked (the prior):

| ability | accuracy % | blank image % | questions |
|---|---|---|---|
{rows}

Measured by `python -m llava.train evaluate`; numbers in `card.json`.
"""
