"""MiniCPM-V's resampler: a fixed number of learned queries look at a view's patches, however many there are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_SIZE = 128
EPSILON = 1e-6
WAVELENGTH = 10_000


class Resampler(nn.Module):
    """One cross-attention; keys carry the position of their patch, values do not. Original names below `resampler.`.

    Args:
        n_queries: visual tokens of a view.
        width: of the language model.
        vision_width: of the tower.
    """

    def __init__(self, n_queries: int, width: int, vision_width: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(n_queries, width))
        self.kv_proj = nn.Linear(vision_width, width, bias=False) if vision_width != width else nn.Identity()
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_SIZE))
        self.ln_q = nn.LayerNorm(width, eps=EPSILON)
        self.ln_kv = nn.LayerNorm(width, eps=EPSILON)
        self.ln_post = nn.LayerNorm(width, eps=EPSILON)
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, patches: Tensor, grids: list[tuple[int, int]], real: Tensor) -> Tensor:
        """Return the visual tokens of V views, (V, n_queries, width).

        Args:
            patches: (V, L, vision_width) from the tower.
            grids: (rows, columns) of patches of each view.
            real: (V, L) bool, False at filler.
        """
        values = self.ln_kv(self.kv_proj(patches))
        positions = torch.zeros_like(values)
        for row, (height, width) in zip(positions, grids, strict=True):
            row[: height * width] = place_vectors(height, width, values.shape[-1], values.device).to(values.dtype)
        queries = self.ln_q(self.query)[None].expand(len(grids), -1, -1)
        return self.ln_post(self._attend(queries, values + positions, values, real)) @ self.proj

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, real: Tensor) -> Tensor:
        """Cross-attention with the weights of `self.attn`; its own forward does not work with quantised ones."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        query, key, value = (
            F.linear(given, weight, bias).unflatten(2, (self.attn.num_heads, -1)).transpose(1, 2)
            for given, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
        return self.attn.out_proj(mixed.transpose(1, 2).flatten(2))


def place_vectors(height: int, width: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return sine and cosine of the places of a grid, (height * width, size) float32, in reading order.

    The first half of a vector tells the column, the second the row; each is sines and then cosines of falling
    frequencies (official code, `get_2d_sincos_pos_embed`).
    """
    frequencies = WAVELENGTH ** -(torch.arange(size // 4, dtype=torch.float32, device=device) / (size / 4))

    def waves(n: int) -> Tensor:
        angles = torch.arange(n, dtype=torch.float32, device=device)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns = waves(width)[None].expand(height, -1, -1)
    rows = waves(height)[:, None].expand(-1, width, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)
