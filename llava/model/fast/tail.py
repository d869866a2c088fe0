"""The layers after the last cut of a prefill, as one function on a bucket of columns.

The columns are filled up on the right, so that causality hides the filler: without filler on the left no mask is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llava.model.fast.compiler import Compiler
from llava.model.stages import Stage

Memory = list[tuple[Tensor, Tensor]]


class _Recorder:
    """Stands in for a cache: hands keys and values back and keeps them."""

    def __init__(self) -> None:
        self.seen: Memory = []

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.seen.append((key, value))
        return key, value


class Tail:
    """Runs the last layers of a decoder compiled.

    Args:
        decoder: the text model.
        compiler: compiles and counts.

    Attributes:
        at_work: whether it may be used: only in generate(), whose callers see nothing of what is between the layers.
    """

    def __init__(self, decoder: Any, compiler: Compiler):
        self.decoder, self.compiler, self.at_work = decoder, compiler, False
        self.eager = decoder.config._attn_implementation == "eager"

    def __call__(self, first: int, hidden: Tensor, stage: Stage, arguments: dict[str, Any]) -> Tensor | None:
        """Return the output of the last layer for (B, S, D) inputs of layer `first`; None if this cannot be done here.

        Args:
            first: the first layer to run.
            hidden: its input.
            stage: its columns.
            arguments: what the layer would be called with; keys and values are put into its cache.
        """
        cache = arguments.get("past_key_values")
        tables = arguments.get("position_embeddings")
        if not isinstance(tables, tuple) or arguments.get("output_attentions") or not _is_empty(cache, first):
            return None
        if not self.at_work or self.compiler.reason is not None or torch.is_grad_enabled():
            return None
        n_columns = hidden.shape[1]
        filler = (0, 0, 0, self.compiler.options.rounded(n_columns) - n_columns)
        mask = self._mask(stage, hidden, filler[3])
        padded = F.pad(hidden, filler)
        cos, sin = (F.pad(table, filler) for table in tables)
        size = ("tail", first, *padded.shape, len(cos), mask is None)
        output, memory = self.compiler.run(self._run, size, first, padded, mask, cos, sin)
        if cache is not None:
            for number, (key, value) in enumerate(memory, start=first):
                cache.update(key[:, :, :n_columns], value[:, :, :n_columns], number)
        return output[:, :n_columns]

    def _run(self, first: int, hidden: Tensor, mask: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Memory]:
        recorder = _Recorder()
        for layer in self.decoder.layers[first:]:
            hidden = type(layer).forward(
                layer,
                hidden,
                attention_mask=mask,
                position_embeddings=(cos, sin),
                position_ids=None,
                past_key_values=recorder,
                use_cache=True,
            )
        return hidden, recorder.seen

    def _mask(self, stage: Stage, hidden: Tensor, n_filler: int) -> Tensor | None:
        """(B, 1, S', S') of a bucket, or None where causality is enough."""
        if stage.valid is None and not self.eager:
            return None
        length = hidden.shape[1] + n_filler
        ones = torch.ones(length, length, dtype=torch.bool, device=hidden.device)
        seen = ones.tril()
        if stage.valid is not None:
            valid = F.pad(stage.valid, (0, n_filler), value=True)
            # Filler sees itself: a row that sees nothing would turn into something that is no number.
            seen = (seen & valid[:, None, :]) | torch.eye(length, dtype=torch.bool, device=hidden.device)
        return as_kernel_wants(seen.view(-1, 1, length, length), hidden.dtype, self.eager)


def as_kernel_wants(seen: Tensor, dtype: torch.dtype, eager: bool) -> Tensor:
    """A bool mask as it is (sdpa), or as what the eager kernel adds to the scores."""
    if not eager:
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def _is_empty(cache: Any, first: int) -> bool:
    """Whether the layers from `first` on hold nothing yet, known without waiting for the device."""
    if cache is None:
        return True
    layers = cache.layers[first:]  # a cache grows while it is filled: layers that are not there hold nothing
    return not any(layer.is_initialized for layer in layers)
