"""MiniCPM-V 2.6 written slowly from its card: one view at a time, no padding, plain loops; for comparison only."""

import math

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.model.minicpm_v_folder import PATCH, QUERIES, TABLE, V_HEADS, V_LAYERS


def grid_of(width: int, height: int, scale: int, most: int):
    """The card's steps 1 and 2."""
    ratio = width * height / (scale * scale)
    m = min(math.ceil(ratio), most)
    if m <= 1:
        return None
    best, error = None, math.inf
    for count in (m - 1, m, m + 1):
        if count == 1 or count > most:
            continue
        for columns in range(1, count + 1):
            if count % columns:
                continue
            rows = count // columns
            distance = abs(math.log(width / height) - math.log(columns / rows))
            if distance < error:
                best, error = (columns, rows), distance
    return best


def view_tokens(weights: dict, pixels: torch.Tensor) -> torch.Tensor:
    """(3, H, W) normalised pixels of one view -> (QUERIES, D)."""
    w = {name: value.float() for name, value in weights.items()}
    height, width = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
    rows = []
    for i in range(height):
        for j in range(width):
            patch = pixels[:, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
            kernel = w["vpm.embeddings.patch_embedding.weight"]
            value = (kernel * patch).sum((1, 2, 3)) + w["vpm.embeddings.patch_embedding.bias"]
            # Fractional coordinates, bucketised into a table of TABLE x TABLE; 1e-6 settles equal fractions.
            place = math.floor(i / height * TABLE + 1e-6) * TABLE + math.floor(j / width * TABLE + 1e-6)
            rows.append(value + w["vpm.embeddings.position_embedding.weight"][place])
    x = torch.stack(rows)
    for n in range(V_LAYERS):
        x = _tower_layer({k.split(f"layers.{n}.")[1]: v for k, v in w.items() if f"vpm.encoder.layers.{n}." in k}, x)
    x = _norm(x, w, "vpm.post_layernorm")

    x = x @ w["resampler.kv_proj.weight"].T
    x = _norm(x, w, "resampler.ln_kv")
    size = x.shape[1]
    places = torch.stack([_place(i, j, size) for i in range(height) for j in range(width)])
    queries = _norm(w["resampler.query"], w, "resampler.ln_q")
    project_q, project_k, project_v = w["resampler.attn.in_proj_weight"].chunk(3)
    bias_q, bias_k, bias_v = w["resampler.attn.in_proj_bias"].chunk(3)
    q, k, v = queries @ project_q.T + bias_q, (x + places) @ project_k.T + bias_k, x @ project_v.T + bias_v
    heads = max(1, size // 128)
    out = _attend(q, k, v, heads)
    out = out @ w["resampler.attn.out_proj.weight"].T + w["resampler.attn.out_proj.bias"]
    assert out.shape[0] == QUERIES
    return _norm(out, w, "resampler.ln_post") @ w["resampler.proj"]


def language_model(config: dict, weights: dict) -> Qwen2ForCausalLM:
    """Plain transformers with the `llm.` weights."""
    keys = {name: value for name, value in config.items() if name not in ("auto_map", "vision_config", "model_type")}
    model = Qwen2ForCausalLM(Qwen2Config(**keys)).eval()
    own = {name.removeprefix("llm."): value.float() for name, value in weights.items() if name.startswith("llm.")}
    model.load_state_dict(own, strict=True)
    return model.float()


def _tower_layer(w: dict, x: torch.Tensor) -> torch.Tensor:
    y = _norm(x, w, "layer_norm1")
    q, k, v = (y @ w[f"self_attn.{n}_proj.weight"].T + w[f"self_attn.{n}_proj.bias"] for n in "qkv")
    y = _attend(q, k, v, V_HEADS)
    x = x + y @ w["self_attn.out_proj.weight"].T + w["self_attn.out_proj.bias"]
    y = _norm(x, w, "layer_norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return x + y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]


def _attend(q, k, v, heads):
    parts = []
    for a, b, c in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        parts.append(torch.softmax(a @ b.T / math.sqrt(a.shape[1]), 1) @ c)
    return torch.cat(parts, 1)


def _norm(x, w, name):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def _place(row: int, column: int, size: int) -> torch.Tensor:
    """The column in the first half, the row in the second; sines before cosines."""
    quarter = size // 4
    rates = [10000 ** (-n / quarter) for n in range(quarter)]
    parts = [f(place * rate) for place in (column, row) for f in (math.sin, math.cos) for rate in rates]
    return torch.tensor(parts)
