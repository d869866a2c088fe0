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
