"""Writes a tiny random MiniCPM-V 2.6 checkpoint in its original on-disk format, weight by weight."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

QUERIES, PATCH, SCALE = 4, 2, 16  # visual tokens a view, pixels of a patch's side, of a view's side
WIDTH, FFN, LAYERS, HEADS, KV_HEADS = 32, 48, 4, 4, 2
V_WIDTH, V_FFN, V_LAYERS, V_HEADS, TABLE = 16, 24, 2, 2, 10
MARKERS = ("image", "ref", "box", "quad", "point", "slice", "image_id")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
SPECIAL += [f"<{slash}{name}>" for name in MARKERS for slash in ("", "/")]
LINES = ["user assistant\n", "Is there a red circle in the image? yes no left right", "What is written on the sign?"]


@cache
def tokenizer() -> Tokenizer:
    """Return a small byte-level BPE tokenizer with the original special tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(SPECIAL)
    return made


def vocabulary_size() -> int:
    return tokenizer().get_vocab_size()


def config(**changes) -> dict:
    """Return config.json as the original has it: flat, with remote code named in it."""
    ids = tokenizer().get_vocab()
    return {
        "_name_or_path": "openbmb/MiniCPM-V-2_6",
        "version": 2.6,
        "architectures": ["MiniCPMV"],
        "auto_map": {
            "AutoConfig": "configuration_minicpm.MiniCPMVConfig",
            "AutoModel": "modeling_minicpmv.MiniCPMV",
            "AutoModelForCausalLM": "modeling_minicpmv.MiniCPMV",
        },
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": FFN,
        "max_position_embeddings": 2048,
        "max_window_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary_size(),
        "batch_vision_input": True,
        "drop_vision_last_layer": False,
        "image_size": SCALE,
        "model_type": "minicpmv",
        "patch_size": PATCH,
        "query_num": QUERIES,
        "slice_config": {"max_slice_nums": 9, "patch_size": PATCH, "model_type": "minicpmv"},
        "slice_mode": True,
        "use_image_id": True,
        "vision_batch_size": 3,
        "vision_config": {
            "hidden_size": V_WIDTH,
            "image_size": TABLE * PATCH,
            "intermediate_size": V_FFN,
            "model_type": "siglip_vision_model",
            "num_attention_heads": V_HEADS,
            "num_hidden_layers": V_LAYERS,
            "patch_size": PATCH,
        },
        **changes,
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the original weight names with their shapes."""
    size, kv = vocabulary_size(), WIDTH // HEADS * KV_HEADS
    table = {
        "llm.model.embed_tokens.weight": (size, WIDTH),
        "llm.model.norm.weight": (WIDTH,),
        "llm.lm_head.weight": (size, WIDTH),
        "vpm.embeddings.patch_embedding.weight": (V_WIDTH, 3, PATCH, PATCH),
        "vpm.embeddings.patch_embedding.bias": (V_WIDTH,),
        "vpm.embeddings.position_embedding.weight": (TABLE * TABLE, V_WIDTH),
        "vpm.post_layernorm.weight": (V_WIDTH,),
        "vpm.post_layernorm.bias": (V_WIDTH,),
        "resampler.query": (QUERIES, WIDTH),
        "resampler.proj": (WIDTH, WIDTH),
        "resampler.kv_proj.weight": (WIDTH, V_WIDTH),
        "resampler.attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "resampler.attn.in_proj_bias": (3 * WIDTH,),
        "resampler.attn.out_proj.weight": (WIDTH, WIDTH),
        "resampler.attn.out_proj.bias": (WIDTH,),
    }
    for name in ("ln_q", "ln_kv", "ln_post"):
        table |= {f"resampler.{name}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    for n in range(LAYERS):
        layer = f"llm.model.layers.{n}."
        table |= {f"{layer}{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")}
        for name, out in (("q_proj", WIDTH), ("k_proj", kv), ("v_proj", kv)):
            table |= {f"{layer}self_attn.{name}.weight": (out, WIDTH), f"{layer}self_attn.{name}.bias": (out,)}
        table |= {
            f"{layer}self_attn.o_proj.weight": (WIDTH, WIDTH),
            f"{layer}mlp.gate_proj.weight": (FFN, WIDTH),
            f"{layer}mlp.up_proj.weight": (FFN, WIDTH),
            f"{layer}mlp.down_proj.weight": (WIDTH, FFN),
        }
    for n in range(V_LAYERS):
        layer = f"vpm.encoder.layers.{n}."
        for name in ("layer_norm1", "layer_norm2"):
            table |= {f"{layer}{name}.{kind}": (V_WIDTH,) for kind in ("weight", "bias")}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table |= {
                f"{layer}self_attn.{name}.weight": (V_WIDTH, V_WIDTH),
                f"{layer}self_attn.{name}.bias": (V_WIDTH,),
            }
        table |= {f"{layer}mlp.fc1.weight": (V_FFN, V_WIDTH), f"{layer}mlp.fc1.bias": (V_FFN,)}
        table |= {f"{layer}mlp.fc2.weight": (V_WIDTH, V_FFN), f"{layer}mlp.fc2.bias": (V_WIDTH,)}
    return table


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random weights in bfloat16; scales around 1."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes().items():
        values = torch.randn(shape, generator=generator) * 0.15
        one = len(shape) == 1 and name.endswith("weight")
        made[name] = (values + one).to(torch.bfloat16)
    return made


def write_checkpoint(folder: Path, weights_: dict | None = None, **changes) -> Path:
    """Write a complete checkpoint folder, two shards, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    made = weights() if weights_ is None else weights_
    names = sorted(made)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in shards.items():
        save_file({name: made[name].contiguous() for name in own}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, own in shards.items() for name in own}
    total = sum(weight.nbytes for weight in made.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "MiniCPMVTokenizerFast",
        "auto_map": {"AutoTokenizer": ["tokenization_minicpmv_fast.MiniCPMVTokenizerFast", None]},
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    preprocessor = {
        "image_processor_type": "MiniCPMVImageProcessor",
        "auto_map": {"AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor"},
        "processor_class": "MiniCPMVProcessor",
        "max_slice_nums": 9,
        "scale_resolution": SCALE,
        "patch_size": PATCH,
        "use_image_id": True,
        "image_feature_size": QUERIES,
        "slice_mode": True,
        "norm_mean": [0.5, 0.5, 0.5],
        "norm_std": [0.5, 0.5, 0.5],
        "version": 2.6,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    # Code that must never be run.
    (folder / "configuration_minicpm.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "modeling_minicpmv.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "tokenization_minicpmv_fast.py").write_text("raise SystemExit('remote code was run')\n")
    return folder
