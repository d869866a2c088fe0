"""The slow truth about a pruned run: the whole sequence, with the dropped tokens hidden as keys from the cut on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.tiny import IMAGE, N_PATCHES


@contextmanager
def masked(model: Any, hidden_from: dict[int, Tensor], real: Tensor):
    """Run `model` at full length; from layer L on, columns outside `hidden_from[L]` (B, N) are not attended to.

    Written with forward pre-hooks and explicit masks only; shares no code with the package.
    """
    decoder = model.model.language_model
    eager = decoder.config._attn_implementation == "eager"

    def hook(number: int):
        alive = real.bool()
        for layer, columns in hidden_from.items():
            if layer <= number:
                alive = alive & columns

        def before(module, args, kwargs):
            length = args[0].shape[1]
            seen = torch.nn.functional.pad(alive, (0, length - alive.shape[1]), value=True)
            mask = torch.ones(length, length, dtype=torch.bool).tril() & seen[:, None, None, :]
            mask = mask | torch.eye(length, dtype=torch.bool)  # a padded query must see something
            if eager:
                mask = torch.where(mask, 0.0, torch.finfo(args[0].dtype).min)
            return args, {**kwargs, "attention_mask": mask}

        return before

    hooks = [
        layer.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in enumerate(decoder.layers)
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def alive_columns(batch: dict[str, Tensor], indices: list[list[Tensor]]) -> Tensor:
    """(B, N) bool: text, and of every image the tokens at the given offsets; every image has N_PATCHES tokens."""
    alive = batch["attention_mask"].bool() & (batch["input_ids"] != IMAGE)
    for row, images in enumerate(indices):
        placeholders = (batch["input_ids"][row] == IMAGE).nonzero().squeeze(1)
        for number, offsets in enumerate(images):
            alive[row, placeholders[number * N_PATCHES : (number + 1) * N_PATCHES][offsets]] = True
    return alive


def with_tokens(batch: dict[str, Tensor], new: Tensor) -> dict[str, Tensor]:
    """The batch with generated tokens appended to the prompts."""
    return {
        **batch,
        "input_ids": torch.cat([batch["input_ids"], new], dim=1),
        "attention_mask": torch.cat([batch["attention_mask"], torch.ones_like(new)], dim=1),
    }


@contextmanager
def rearranged(model: Any, state: Any, real: Tensor, renumber: bool):
    """Run `model` at full length as a prompt state says: other tokens per layer, mixtures, positions, a cut cache.

    From the first layer of each of the state's stages on, columns outside the stage are not attended to; its tokens are
    written to the columns they stand at, mixtures with their recorded values; positions are counted anew if
    `renumber`. Tokens after the prompt see what the cut cache of the layer holds. Shares no code with the package.

    Args:
        state: with `stages` and `cached`, as the cache object carries it.
        real: (B, N) of the prompt.
    """
    decoder = model.model.language_model
    eager = decoder.config._attn_implementation == "eager"
    n_rows, n_prompt = real.shape
    rows = torch.arange(n_rows)[:, None]

    def members(stage: Any) -> Tensor:
        valid = torch.ones_like(stage.index) if stage.valid is None else stage.valid.long()
        return torch.zeros(n_rows, n_prompt, dtype=torch.long).scatter_add_(1, stage.index, valid) > 0

    def seen(number: int) -> tuple[Tensor, Tensor, bool]:
        prefill, cut = real.bool(), False
        for stage in state.stages:
            if stage.first_layer <= number:
                prefill, cut = members(stage), True
        later = members(state.cached[number]) if number in state.cached else prefill
        return prefill, later, cut or number in state.cached

    def move(hidden: Tensor, number: int) -> Tensor:
        """Write the tokens of the stage that begins here to the columns they stand at."""
        where = torch.arange(n_prompt).expand(n_rows, -1).clone()  # source column -> column it stands at
        for stage in state.stages:
            if stage.first_layer == number:
                tokens = hidden[rows, where[rows, stage.source]]
                if stage.mixtures is not None:
                    mixtures = stage.mixtures
                    for problem, place in (mixtures.place >= 0).nonzero().tolist():
                        sample = int(mixtures.sample[problem])
                        tokens[sample, mixtures.place[problem, place]] = mixtures.values[problem, place]
                moved = hidden.clone()
                kept = torch.ones_like(stage.index, dtype=torch.bool) if stage.valid is None else stage.valid
                moved[rows.expand_as(stage.index)[kept], stage.index[kept]] = tokens[kept]
                return moved
            where[rows, stage.source] = stage.index
        return hidden

    def hook(number: int):
        def before(module, args, kwargs):
            hidden = move(args[0], number)
            length = hidden.shape[1]
            prefill, later, cut = seen(number)
            new = torch.ones(n_rows, length - n_prompt, dtype=torch.bool)
            prefill, later = torch.cat([prefill, new], dim=1), torch.cat([later, new], dim=1)
            by_query = torch.where(torch.arange(length)[None, :, None] < n_prompt, prefill[:, None], later[:, None])
            mask = (torch.ones(length, length, dtype=torch.bool).tril() & by_query)[:, None]
            mask = mask | torch.eye(length, dtype=torch.bool)  # a padded query must see something
            if renumber and cut:
                rank = (prefill.cumsum(1) - 1).clamp_min(0)
                rank[:, n_prompt:] = (later.cumsum(1) - 1)[:, n_prompt:]
                kwargs = {**kwargs, "position_embeddings": decoder.rotary_emb(hidden, rank)}
            if eager:
                mask = torch.where(mask, 0.0, torch.finfo(hidden.dtype).min)
            return (hidden, *args[1:]), {**kwargs, "attention_mask": mask}

        return before

    hooks = [
        layer.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in enumerate(decoder.layers)
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
