"""MiniCPM-V's vision tower: SigLIP on views of any size, packed as strips of patches."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, SiglipVisionConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.siglip.modeling_siglip import SiglipEncoder


class PatchEmbeddings(nn.Module):
    """Patches to vectors, each with the entry of the square position table that lies at the same fraction of a side.

    Args:
        config: the tower's; the table has (image_size // patch_size)^2 entries.
    """

    def __init__(self, config: SiglipVisionConfig):
        super().__init__()
        patch = _side(config.patch_size)
        self.side = _side(config.image_size) // patch
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, kernel_size=patch, stride=patch)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, strips: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """(V, 3, P, L * P) strips of L patches and the (rows, columns) of each view -> (V, L, D)."""
        patches = self.patch_embedding(strips).flatten(2).transpose(1, 2)
        positions = torch.zeros(patches.shape[:2], dtype=torch.long)
        for row, (height, width) in zip(positions, grids, strict=True):
            rows, columns = table_places(height, self.side), table_places(width, self.side)
            row[: height * width] = (rows[:, None] * self.side + columns).flatten()
        return patches + self.position_embedding(positions.to(patches.device))


@functools.cache
def table_places(n_patches: int, side: int) -> Tensor:
    """Return for each of n patches along a side the entry, of `side`, of the position table: (n_patches,)."""
    # The official code's arithmetic, single-precision step included: it decides on which side of a border a patch is.
    step = float(1 / torch.tensor(n_patches))
    fractions = torch.arange(0, 1 - 1e-6, step)
    return torch.bucketize(fractions, torch.arange(1 / side, 1.0, 1 / side), right=True)


def _side(size: int | Sequence[int]) -> int:
    """Side of a square, which a configuration may give twice."""
    return size if isinstance(size, int) else size[0]


class VisionTower(PreTrainedModel):
    """SigLIP's encoder behind `PatchEmbeddings`; the weights have the original names below `vpm.`.

    Args:
        config: as of `SiglipVisionModel`.
    """

    config_class = SiglipVisionConfig
    main_input_name = "strips"
    input_modalities = ["image"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SiglipVisionConfig):
        super().__init__(config)
        self.embeddings = PatchEmbeddings(config)
        self.encoder = SiglipEncoder(config)  # type: ignore[arg-type]  # it reads the tower's part only
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(self, strips: Tensor, grids: list[tuple[int, int]], real: Tensor) -> Tensor:
        """Encode V views.

        Args:
            strips: (V, 3, P, L * P) patches in reading order side by side, filled up to the longest view.
            grids: (rows, columns) of patches of each view.
            real: (V, L) bool, False at filler.

        Returns:
            (V, L, D); what stands at filler means nothing.
        """
        hidden = self.embeddings(strips, grids)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=real)
        return self.post_layernorm(self.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state)
