"""Prefill time of methods against the unpruned model, beside what the floating point operations promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from tqdm import tqdm
from transformers import DynamicCache

from llava.errors import LlavaError
from llava.reduction.base import Reduction

from .timing import Spread, interleaved, ratios

TOWER = "vision tower"


@torch.no_grad()
def measure(
    model: Any,
    inputs: dict[str, torch.Tensor],
    methods: dict[str, Reduction],
    repeats: int,
    warmup: int,
    of_layers: int | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[dict]:
    """Time the prefill (vision tower, projector, decoder, one row of logits, a fresh cache) under every method.

    Args:
        methods: label -> method; the first one is the baseline of the ratios.
        of_layers: layers of the whole decoder if the model is a slice of it; selection is then also given as a share of
            the whole decoder's unpruned prefill, extrapolated layer by layer from the slice's.
        say: told which methods cannot work on this model.
    Returns:
        one row for each method: seconds (median, quartiles), speed-up over the baseline, the same for the language
        model alone (without vision tower and projector), the FLOPs ratio, selection time and its share of the
        baseline's prefill, tokens and cache bytes.
    """
    reports: dict[str, list] = {label: [] for label in methods}

    def prefill(label: str) -> None:
        with methods[label](model) as pruning:
            model(**inputs, past_key_values=DynamicCache(config=model.config.get_text_config()), logits_to_keep=1)
        reports[label].append(pruning.last)

    runs = {}
    for label in methods:  # a round that is not timed; it shows which methods work here
        try:
            prefill(label)
            runs[label] = lambda label=label: prefill(label)
        except LlavaError as error:
            say(f"{label} is left out: {error}")
        reports[label].clear()
    images = {name: value for name, value in inputs.items() if name in ("pixel_values", "image_sizes")}
    runs[TOWER] = lambda: model.get_image_features(**images)
    bar = tqdm(total=len(runs) * (repeats + warmup), desc="prefill", leave=False)
    seconds = interleaved(runs, model.device, repeats, warmup, tick=bar.update)
    bar.close()
    baseline, tower = next(iter(runs)), Spread.of(seconds.pop(TOWER)).median
    whole = unpruned = Spread.of(seconds[baseline]).median
    if of_layers is not None:
        whole = tower + (unpruned - tower) * of_layers / model.config.get_text_config().num_hidden_layers
    rows = []
    for label in seconds:
        last = reports[label][-1]
        selection = Spread.of([report.selection_seconds for report in reports[label][warmup:]])
        rows.append(
            {
                "method": label,
                "prefill_seconds": asdict(Spread.of(seconds[label])),
                "speedup": asdict(ratios(seconds[baseline], seconds[label])),
                "tower_seconds": tower,
                "llm_speedup": (unpruned - tower) / (Spread.of(seconds[label]).median - tower),
                "flops_ratio": sum(last.flops_exact_unpruned) / sum(last.flops_exact),
                "selection_seconds": asdict(selection),
                "selection_share": selection.median / whole,
                "whole_unpruned_seconds": whole,
                "visual": last.visual,
                "asked": last.asked,
                "final": last.final,
                "mean_over_layers": last.mean_over_layers,
                "cache_bytes": last.cache_bytes,
                "cache_bytes_unpruned": last.cache_bytes_unpruned,
            }
        )
    return rows
