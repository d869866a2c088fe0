"""Held-out accuracy of the model in training: exact answers by kind of question, with and without the image.

A greedy answer is exact if and only if every token of the reference is the most likely one given the tokens before it,
so one forward pass over packed questions measures what generation would give.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from . import drills, videos
from .data import Prompt, SceneBatches, Stage
from .nano import CLIP_MEAN, Trainee

HELD_OUT_SEED = 777_000_001


@torch.no_grad()
def accuracy(
    trainee: Trainee, prompt: Prompt, stage: Stage, batches: int, blank: bool = False
) -> dict[str, tuple[float, int]]:
    """Share of exact answers and number of questions, by kind.

    Args:
        stage: scenes, number of tokens and batch size are its; questions carry the single-word sentence.
        batches: how many batches to measure.
        blank: replace every image by the mean colour (the prior: what can be answered without seeing).
    """
    source = SceneBatches(prompt, replace(stage, chat=0.0, short=1.0, questions=True, turns=False), HELD_OUT_SEED, 0)
    device = next(trainee.parameters()).device
    right: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for number in range(batches):
        batch = source.batch(np.random.default_rng([HELD_OUT_SEED, number]))
        pixels = batch["pixels"].to(device)
        if blank:
            pixels = (torch.tensor(CLIP_MEAN, device=device) * 255).to(torch.uint8).expand_as(pixels)
        index, shown, text = batch["index"].to(device), batch["shown"].to(device), batch["text"]
        kinds = text.pop("kinds")
        text = {k: v.to(device) for k, v in text.items()}
        features = trainee.features(pixels, index)
        chosen = features.gather(1, shown[..., None].expand(-1, -1, features.shape[-1]))
        logits, target = trainee.answers(chosen, index.gather(1, shown), text)
        wrong = torch.zeros_like(text["target"], dtype=torch.bool)
        wrong[text["target"] >= 0] = logits.argmax(-1) != target
        for names, row in zip(kinds, wrong.any(-1).tolist(), strict=False):
            for kind, missed in zip(names, row, strict=False):
                total[kind] += 1
                right[kind] += not missed
    return {kind: (right[kind] / total[kind], total[kind]) for kind in sorted(total)}


def by_ability(trainee: Trainee, prompt: Prompt, exams: tuple[Stage, ...], batches: int, blank: bool = False) -> dict:
    """`accuracy` on several exams in one table.

    Exercises for training are left out. An ability that an earlier exam has measured too carries the later exam's name.
    """
    table: dict[str, tuple[float, int]] = {}
    for exam in exams:
        for kind, measured in accuracy(trainee, prompt, exam, batches, blank).items():
            if kind not in (drills.KIND, videos.DETAIL):
                table[f"{kind} ({exam.name})" if kind in table else kind] = measured
    return table
