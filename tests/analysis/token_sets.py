"""Random sets of tokens of different lengths."""

import numpy as np
import torch


def drawn(seed, n=12, width=3, spread=1.0):
    """n tokens of `width` dimensions whose lengths differ by up to e^spread, the first of them pivots, some kept."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(n, width)) + rng.normal(size=width)  # a common direction, as in real hidden states
    tokens *= np.exp(spread * rng.uniform(-1, 1, (n, 1))) / np.linalg.norm(tokens, axis=1, keepdims=True)
    pivots = np.arange(n) < 2
    kept = pivots | (rng.random(n) < 0.3)
    kept[-1] = False
    return torch.tensor(tokens), torch.tensor(kept), torch.tensor(pivots)
