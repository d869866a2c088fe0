"""llava-nano: the configuration of the embedded model, its initial weights, and a training view of it.

The model is an ordinary `LlavaForConditionalGeneration`; the training view (`Trainee`) runs the same modules on a
subset of patches, each with its true position, and adds dense heads that are thrown away after training.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .guidance import LAYER, Guide
from .scenes import BACKGROUNDS, CHARACTERS, COLORS, SHAPES, SIZES

IMAGE_SIZE, PATCH = 336, 14
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DENSE_CLASSES = {
    "thing": 1 + len(COLORS) * len(SHAPES),
    "center": 2,
    "character": 1 + len(CHARACTERS),
    "place": 4,
    "row": 6,
    "column": 6,
    "background": len(BACKGROUNDS),
    "size": SIZES,
}
# Rare labels weigh more: most patches show no character and no centre.
DENSE_WEIGHT = {
    "thing": 1.0,
    "center": 0.5,
    "character": 1.0,
    "place": 0.5,
    "row": 0.1,
    "column": 0.1,
    "background": 0.1,
    "size": 0.4,
}


def nano_config(tokenizer) -> LlavaConfig:
    """LLaVA-1.5's layout at nano size: CLIP ViT 336/14, feature layer -2, two-layer GELU projector, Llama decoder."""
    return LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "projection_dim": 128,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": math.ceil(len(tokenizer) / 64) * 64,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 10,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "max_position_embeddings": 4096,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
    )


def grid_positions(side: int, width: int) -> Tensor:
    """Two-dimensional sine/cosine table (side * side, width): a start from which attention finds neighbours quickly."""
    quarter = width // 4
    frequency = torch.exp(-math.log(64.0) * torch.arange(quarter) / quarter)
    angle = torch.arange(side)[:, None] * frequency[None]
    wave = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)
    return torch.cat([rows, columns], 2).reshape(side * side, width)


@torch.no_grad()
def initial_model(config: LlavaConfig, seed: int = 0) -> LlavaForConditionalGeneration:
    """A fresh model; matrices start at 1/sqrt(fan-in), outputs of residual branches smaller."""
    torch.manual_seed(seed)
    model: Any = LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "embed" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")):
                parameter.mul_(0.25)
        elif name.endswith("bias"):
            parameter.zero_()
    embeddings = model.model.vision_tower.embeddings
    embeddings.patch_embedding.weight.mul_(0.5)
    embeddings.position_embedding.weight.normal_(std=0.02)
    embeddings.position_embedding.weight[1:] += grid_positions(
        IMAGE_SIZE // PATCH, model.config.vision_config.hidden_size
    )
    nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    model.lm_head.weight.normal_(std=0.02)
    return model


def to_patches(pixels: Tensor) -> Tensor:
    """uint8 images (B, side, side, 3) -> normalised patches (B, n, 3 * PATCH * PATCH), laid out as a conv weight."""
    batch, side = pixels.shape[0], pixels.shape[1] // PATCH
    x = (pixels.float() / 255 - torch.tensor(CLIP_MEAN, device=pixels.device)) / torch.tensor(
        CLIP_STD, device=pixels.device
    )
    x = x.view(batch, side, PATCH, side, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, side * side, -1)


class Trainee(nn.Module):
    """The model with its dense heads; every part takes patches together with their indices in the full grid."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        self.model: Any = model
        vision: Any = model.config.vision_config
        width = vision.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in DENSE_CLASSES.items()})
        self.guide = Guide()
        self.model.model.language_model.layers[LAYER].self_attn.guide = self.guide

    def features(self, pixels: Tensor, index: Tensor) -> Tensor:
        """Patch features (B, n, width) at the feature layer.

        Args:
            pixels: (B, side, side, 3) uint8.
            index: (B, n) places of the patches in the full grid.
        """
        tower = self.model.model.vision_tower
        embed = tower.embeddings
        patches = F.linear(to_patches(pixels), embed.patch_embedding.weight.flatten(1))
        position = embed.position_embedding.weight
        x = patches + position[1:][index]
        start = (embed.class_embedding + position[0]).expand(len(x), 1, -1)
        x = tower.pre_layrnorm(torch.cat([start, x], 1))
        for layer in tower.encoder.layers[: self.model.config.vision_feature_layer + 1]:
            x = layer(x, attention_mask=None)
        return x[:, 1:]

    def dense_loss(self, features: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the heads' cross-entropies, and accuracies over labelled patches that show something."""
        total, accuracy = features.new_zeros(()), {}
        for name, head in self.heads.items():
            logits, target = head(features).float(), labels[name]
            wrong = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum")
            total = total + DENSE_WEIGHT[name] * wrong / (target >= 0).sum().clamp(min=1)  # a batch may lack a label
            shows = (target > 0) if name in ("thing", "character", "center") else (target >= 0)
            accuracy[name] = ((logits.argmax(-1) == target) & shows).sum() / shows.sum().clamp(min=1)
        return total, accuracy

    def answers(self, features: Tensor, index: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and targets of the answers' tokens, (n, vocabulary) and (n,), in the order of `text["target"]`.

        Args:
            features: (B, n, width) patch features handed to the projector.
            index: (B, n) their indices in the full grid.
            text: `prefix` (P,) ids and `prefix_position` (P,); `ids`, `position`, `target` (B, Q, T): Q question blocks
                that see the prefix, the image and themselves only, padded on the right; target -100 is not learned;
                `looks`, where options are to be found (`Guide`, whose `loss` then is that of this call).
        """
        core, (batch, blocks, _) = self.model.model, text["ids"].shape
        words = core.get_input_embeddings()
        prefix = words(text["prefix"])[None].expand(batch, -1, -1)
        visual = core.multi_modal_projector(features)
        hidden = torch.cat([prefix, visual.to(prefix.dtype), words(text["ids"].flatten(1))], 1)
        shown = text["prefix_position"][None].expand(batch, -1)
        position = torch.cat([shown, text["prefix_full"] + index, text["position"].flatten(1)], 1)
        shared = prefix.shape[1] + index.shape[1]
        self.guide.looks, self.guide.loss = text.get("looks"), None
        with _attention(core.language_model, PACKED):
            out = core.language_model(
                inputs_embeds=hidden,
                attention_mask=hidden.new_zeros(1, 1, 1, 1),  # four dimensions pass through unread
                position_ids=position,
                use_cache=False,
                n_shared=shared,
                n_blocks=blocks,
            ).last_hidden_state[:, shared:]
        target = text["target"].flatten(1)
        learned = target >= 0
        return self.model.lm_head(out[learned]).float(), target[learned]


PACKED = "llava_packed_questions"


def packed_attention(module, query, key, value, attention_mask, scaling, n_shared: int, n_blocks: int, **_):
    """Attention over a shared prefix and question blocks that see the prefix and themselves only.

    query, key, value (B, H, n_shared + n_blocks * T, D) -> (B, n, H, D), None. Equal to masked attention over the
    packed sequence; the many pairs between different blocks are never computed.
    """
    b, h, n, d = query.shape
    length = (n - n_shared) // n_blocks
    (qs, qt), (ks, kt), (vs, vt) = (x.split([n_shared, n - n_shared], 2) for x in (query, key, value))
    shared = F.scaled_dot_product_attention(qs, ks, vs, is_causal=True, scale=scaling)
    qo, ko, vo = (x.reshape(b, h, n_blocks, length, d) for x in (qt, kt, vt))
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    own = (qo @ ko.transpose(-1, -2) * scaling).masked_fill(future, -torch.inf)
    seen = (qt @ ks.transpose(-1, -2) * scaling).view(b, h, n_blocks, length, n_shared)
    scores = torch.cat([seen, own], -1)
    if hasattr(module, "guide"):
        module.guide.listen(scores, n_shared)
    weights = scores.softmax(-1).to(value.dtype)
    from_shared = weights[..., :n_shared].reshape(b, h, n - n_shared, n_shared) @ vs
    from_own = (weights[..., n_shared:] @ vo).view(b, h, n - n_shared, d)
    return torch.cat([shared, from_shared + from_own], 2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)


@contextmanager
def _attention(module: Any, name: str):
    """Use another attention function inside the block."""
    before = module.config._attn_implementation
    module.config._attn_implementation = name
    try:
        yield
    finally:
        module.config._attn_implementation = before
