"""Turns a tiny converted LLaVA checkpoint into LLaVA's original format, file by file as liuhaotian's folders are."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.model.llava_folder import PINPOINTS, PREPROCESSOR, TOKENIZERS, VISION

ARCHITECTURES = {
    "llama": ("llava_llama", "LlavaLlamaForCausalLM"),
    "llama-3": ("llava_llama", "LlavaLlamaForCausalLM"),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM"),
}
PROJECTOR = {"linear_1": "0", "linear_2": "2"}


def original_name(key: str) -> str:
    """Return what the original format calls a weight of a converted file (table of the model card, read backwards)."""
    if key.startswith("vision_tower."):
        return "model.vision_tower.vision_tower.vision_model." + key.split("vision_tower.")[1].removeprefix(
            "vision_model."
        )
    if key.startswith("multi_modal_projector."):
        _, layer, what = key.split(".")
        return f"model.mm_projector.{PROJECTOR[layer]}.{what}"
    return (
        key
        if key == "lm_head.weight"
        else "model." + key
        if key == "image_newline"
        else key.split("language_model.")[1]
    )


def write_tower(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Write a whole CLIP model, both sides, as openai/clip-vit-large-patch14-336 has it: one pickled file."""
    folder.mkdir(parents=True)
    config = {"model_type": "clip", "vision_config": VISION, "text_config": {"hidden_size": 8}, "projection_dim": 16}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    others = {
        "logit_scale": torch.ones(()),
        "text_model.final_layer_norm.weight": torch.ones(8),
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    torch.save({**weights, **others}, folder / "pytorch_model.bin")
    return folder


def write_original(
    converted: Path,
    folder: Path,
    *,
    decoder: str = "llama",
    tiled: bool = False,
    kind: str = "bin",
    shards: int = 2,
    bundled: bool | None = None,
    **changes: object,
) -> Path:
    """Write the weights of a converted checkpoint in the original format and return the folder.

    Args:
        decoder, tiled: as `write_checkpoint` was called.
        kind: "bin" or "safetensors".
        shards: number of weight files.
        bundled: whether the vision tower is inside (default: for LLaVA-NeXT) or a folder beside the checkpoint.
        changes: further entries of config.json.
    """
    folder.mkdir(parents=True)
    bundled = tiled if bundled is None else bundled
    vocabulary = TOKENIZERS[decoder](folder, converted=False)
    source = json.loads((converted / "config.json").read_text())
    weights = {original_name(key): value for key, value in load_file(converted / "model.safetensors").items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:vocabulary].clone()
    if not bundled:
        prefix = "model.vision_tower.vision_tower."
        tower = {key.removeprefix(prefix): weights.pop(key) for key in sorted(weights) if key.startswith(prefix)}
        write_tower(folder.parent / "clip-tiny", tower)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # as old shards have it
    _save(weights, folder, kind, shards)
    model_type, architecture = ARCHITECTURES[decoder]
    text = {key: value for key, value in source["text_config"].items() if key not in ("model_type", "dtype")}
    rope = text.pop("rope_parameters", None) or {}
    config = {
        **text,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "model_type": model_type,
        "architectures": [architecture],
        "vocab_size": vocabulary,
        "pad_token_id": 0,
        "torch_dtype": "float16",
        "image_aspect_ratio": "anyres" if tiled else "pad",
        "mm_hidden_size": VISION["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "tiny/clip-tiny",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "unfreeze_mm_vision_tower": bundled,
        **({"mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": PINPOINTS} if tiled else {}),
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    )
    if bundled and not (folder.parent / "clip-tiny").exists():
        write_tower(folder.parent / "clip-tiny", {})
    return folder


def _save(weights: dict[str, torch.Tensor], folder: Path, kind: str, shards: int) -> None:
    stem = "pytorch_model" if kind == "bin" else "model"
    write = torch.save if kind == "bin" else lambda part, file: save_file(part, file, metadata={"format": "pt"})
    keys = sorted(weights)
    if shards == 1:
        write(weights, folder / f"{stem}.{kind}")
        return
    weight_map = {}
    for number in range(shards):
        name = f"{stem}-{number + 1:05}-of-{shards:05}.{kind}"
        part = {key: weights[key] for key in keys[number::shards]}
        write(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
