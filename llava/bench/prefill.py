"""Prefill time of methods against the unpruned model, beside what the floating point operations promise."""

from __future__ import annotations

from dataclasses import asdict

import torch
from tqdm import tqdm
from transformers import DynamicCache

from llava.reduction.base import Reduction

from .timing import Spread, interleaved, ratios


@torch.no_grad()
def measure(
    model, inputs: dict[str, torch.Tensor], methods: dict[str, Reduction], repeats: int, warmup: int
) -> list[dict]:
    """Time the prefill (vision tower, projector, decoder, one row of logits, a fresh cache) under every method.

    Args:
        methods: label -> method; the first one is the baseline of the ratios.
    Returns:
        one row for each method: seconds (median, quartiles), speed-up over the baseline, the FLOPs ratio, selection
        time and its share of the baseline's prefill, tokens and cache bytes.
    """
    reports: dict[str, list] = {label: [] for label in methods}

    def prefill(label: str) -> None:
        with methods[label](model) as pruning:
            model(**inputs, past_key_values=DynamicCache(config=model.config.get_text_config()), logits_to_keep=1)
        reports[label].append(pruning)

    bar = tqdm(total=len(methods) * (repeats + warmup), desc="prefill", leave=False)
    seconds = interleaved(
        {label: lambda label=label: prefill(label) for label in methods}, model.device, repeats, warmup, tick=bar.update
    )
    bar.close()
    baseline = next(iter(methods))
    rows = []
    for label in methods:
        last = reports[label][-1].last
        selection = Spread.of([pruning.last.selection_seconds for pruning in reports[label][warmup:]])
        rows.append(
            {
                "method": label,
                "prefill_seconds": asdict(Spread.of(seconds[label])),
                "speedup": asdict(ratios(seconds[baseline], seconds[label])),
                "flops_ratio": sum(last.flops_exact_unpruned) / sum(last.flops_exact),
                "selection_seconds": asdict(selection),
                "selection_share": selection.median / Spread.of(seconds[baseline]).median,
                "visual": last.visual,
                "asked": last.asked,
                "final": last.final,
                "mean_over_layers": last.mean_over_layers,
                "cache_bytes": last.cache_bytes,
                "cache_bytes_unpruned": last.cache_bytes_unpruned,
            }
        )
    return rows
