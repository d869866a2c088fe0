"""One decoding step as one function on static caches whose lengths differ from layer to layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import StaticCache

from llava.model.fast.compiler import Compiler
from llava.model.fast.options import Fast
from llava.model.fast.tail import as_kernel_wants
from llava.model.stages import PromptState


@dataclass(frozen=True)
class Span:
    """Neighbouring layers that see the same columns.

    Args:
        first, after: the layers.
        length: columns their caches hold of the prompt, filler included.
        valid: (B, length) bool, False at filler; None: no filler.
        shift: (B,) by how much positions are smaller than generate() counts them; None: not at all.
    """

    first: int
    after: int
    length: int
    valid: Tensor | None
    shift: Tensor | None


def spans(cache: Any, state: PromptState | None, padding: Tensor | None) -> list[Span]:
    """Return which layers see what, after a prefill.

    Args:
        cache: a dynamic cache.
        state: the cuts of the prefill; None: there were none.
        padding: (B, N) bool, False at the padding of the prompt; None: none.
    """
    found: list[Span] = []
    stage_before: Any = None
    for number, layer in enumerate(cache.layers):
        stage = None if state is None else state.at(number)
        length = layer.keys.shape[2]
        if found and stage is stage_before and length == found[-1].length:
            last = found[-1]
            found[-1] = Span(last.first, number + 1, length, last.valid, last.shift)
            continue
        stage_before = stage
        valid, shift = (padding, None) if stage is None else (stage.valid, stage.shift)
        found.append(Span(number, number + 1, length, valid, shift))
    return found


class Pool:
    """Static caches by their sizes: a compiled step finds its tensors at the same addresses again."""

    def __init__(self, config: Any, options: Fast):
        self.config, self.options = config, options
        self._caches: OrderedDict[Any, Any] = OrderedDict()

    def filled(self, cache: Any, lengths: Sequence[int]) -> Any:
        """Return a static cache of these lengths that holds what a dynamic one holds, which is emptied."""
        first = cache.layers[0].keys
        key = (first.shape[0], tuple(lengths), first.dtype, first.device)
        static: Any = self._caches.pop(key, None)
        if static is None:
            while len(self._caches) >= self.options.caches:
                self._caches.popitem(last=False)
            with torch.inference_mode(False):  # tensors made in it could not be written outside of it
                static = self._made(cache, lengths)
        self._caches[key] = static
        for source, layer in zip(cache.layers, static.layers, strict=True):
            n_columns = source.keys.shape[2]
            layer.keys[:, :, :n_columns].copy_(source.keys)
            layer.values[:, :, :n_columns].copy_(source.values)
            layer.cumulative_length.fill_(n_columns)
            source.keys = source.values = source.keys.new_empty(*source.keys.shape[:2], 0, source.keys.shape[3])
        return static

    def _made(self, cache: Any, lengths: Sequence[int]) -> Any:
        static: Any = StaticCache(self.config, max_cache_len=max(lengths))
        for source, layer, length in zip(cache.layers, static.layers, lengths, strict=True):
            layer.max_cache_len = length
            layer.lazy_initialization(source.keys[:, :, :0], source.values[:, :, :0])
        return static


class Decoding:
    """The steps after one prefill.

    Args:
        model: its language head makes the logits.
        decoder: the text model.
        compiler: compiles and counts.
        pool: gives the caches.
        cache: the dynamic cache at the end of the prefill; it is emptied.
        parts: see `spans`.
        n_new: tokens that will be fed at most.
    """

    def __init__(
        self, model: Any, decoder: Any, compiler: Compiler, pool: Pool, cache: Any, parts: Sequence[Span], n_new: int
    ):
        self.decoder, self.head, self.compiler = decoder, model.get_output_embeddings(), compiler
        self.eager = decoder.config._attn_implementation == "eager"
        rounded = [compiler.options.rounded(part.length + n_new) for part in parts]
        lengths = [size for part, size in zip(parts, rounded, strict=True) for _ in range(part.first, part.after)]
        self.parts = parts
        self.layers = tuple((part.first, part.after) for part in parts)
        self.valid = tuple(
            None if part.valid is None else F.pad(part.valid, (0, size - part.length), value=True)
            for part, size in zip(parts, rounded, strict=True)
        )
        self.shift = tuple(None if part.shift is None else part.shift[:, None] for part in parts)
        batch = cache.layers[0].keys.shape[0]
        kinds = tuple((valid is None, shift is None) for valid, shift in zip(self.valid, self.shift, strict=True))
        self.size = ("step", batch, tuple(lengths), kinds)
        self.cache = pool.filled(cache, lengths)
        self.fed = 0

    def step(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the (B, V) float32 logits after one more token.

        Args:
            ids: (B, 1).
            positions: (B, 1), or (k, B, 1) where positions have several dimensions.
        """
        positions = positions[1:] if positions.ndim == 3 and len(positions) == 4 else positions
        size = (*self.size, positions.shape)
        arguments = (ids, positions, self.layers, self.valid, self.shift, self.cache)
        logits = self.compiler.run(self._step, size, *arguments, undo=self._undo)
        self.fed += 1
        return logits

    def _step(
        self,
        ids: Tensor,
        positions: Tensor,
        layers: tuple[tuple[int, int], ...],
        valid: tuple[Tensor | None, ...],
        shifts: tuple[Tensor | None, ...],
        cache: Any,
    ) -> Tensor:
        hidden = self.decoder.embed_tokens(ids)
        shared = self.decoder.rotary_emb(hidden, positions)
        for (first, after), seen, shift in zip(layers, valid, shifts, strict=True):
            tables = shared if shift is None else self.decoder.rotary_emb(hidden, positions - shift)
            held = cache.layers[first]
            mask = torch.arange(held.max_cache_len, device=ids.device) <= held.cumulative_length
            mask = mask.expand(ids.shape[0], -1) if seen is None else mask & seen
            mask = as_kernel_wants(mask[:, None, None, :], hidden.dtype, self.eager)
            for layer in self.decoder.layers[first:after]:
                hidden = type(layer).forward(
                    layer,
                    hidden,
                    attention_mask=mask,
                    position_embeddings=tables,
                    position_ids=None,
                    past_key_values=cache,
                    use_cache=True,
                )
        return self.head(self.decoder.norm(hidden))[:, -1].float()

    def _undo(self) -> None:
        """Forget what a step that failed may have written."""
        for part in self.parts:
            for layer in self.cache.layers[part.first : part.after]:
                layer.cumulative_length.fill_(part.length + self.fed)
