"""A stand-in for flash-attn on the CPU, so that transformers' flash_attention_2 path runs without a GPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers.modeling_flash_attention_utils as flash_utils
from torch import Tensor


class FakeFlash:
    """Dense and variable-length kernels with flash-attn's conventions; counts its calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def dense(
        self, q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None = None, causal: bool = False, **_: Any
    ):
        self.calls["dense"] += 1
        return _attend(q, k, v, softmax_scale, causal)

    def varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        softmax_scale: float | None = None,
        causal: bool = False,
        **_: Any,
    ) -> Tensor:
        self.calls["varlen"] += 1
        parts = []
        for row in range(len(cu_seqlens_q) - 1):
            queries = slice(int(cu_seqlens_q[row]), int(cu_seqlens_q[row + 1]))
            keys = slice(int(cu_seqlens_k[row]), int(cu_seqlens_k[row + 1]))
            parts.append(_attend(q[None, queries], k[None, keys], v[None, keys], softmax_scale, causal)[0])
        return torch.cat(parts)

    def install(self, monkeypatch: Any) -> None:
        """Let transformers find these kernels for the duration of a test."""

        def arguments(**given: Any) -> dict[str, Any]:
            causal = given["is_causal"] and given.get("query_length") != 1
            return {"softmax_scale": given.get("softmax_scale"), "causal": causal}

        kernels = (self.dense, self.varlen, None, flash_utils._pad_input, flash_utils._unpad_input)
        # Newer transformers want a second function, for paged caches.
        pair = hasattr(flash_utils, "_process_with_kvcache_kwargs_fn")
        paged = (arguments, None) if pair else arguments
        monkeypatch.setattr(flash_utils, "lazy_import_flash_attention", lambda *args, **kwargs: (kernels, paged))


def use_flash(model: Any) -> Any:
    """Switch the text model of a vision-language model to flash_attention_2, past the check for the package."""
    for module in model.model.language_model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = "flash_attention_2"
    return model


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k, v = (tensor.repeat_interleave(groups, 1) for tensor in (k, v))
    mask = None
    if causal:  # aligned at the bottom right, as flash-attn does
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
