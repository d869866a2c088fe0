"""Batches for training: scenes drawn on the fly, questions packed behind one image, everything a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset

from .examples import Difficulty, sample_example
from .nano import IMAGE_SIZE, PATCH
from .questions import NO_OCR, SHORT
from .scenes import draw_scene, patch_labels
from .tokenizer import SYSTEM

LONG_ANSWERS = ("caption",)


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Args:
        name: shown in the log.
        steps: optimiser steps.
        batch: images for each step.
        level: what the scenes look like.
        lr: peak learning rate.
        questions: False trains the tower on dense labels only.
        tokens: patches of a window handed to the language model (those that show something first), None for all.
        full_prompt: False leaves out the constant system sentence (positions stay true).
        dense: weight of the dense loss.
        chat: share of images whose questions form one conversation instead of independent blocks.
        short: share of questions that carry the single-word sentence of the benchmarks.
    """

    name: str
    steps: int
    batch: int
    level: Difficulty
    lr: float = 1.5e-3
    questions: bool = True
    tokens: int | None = None
    full_prompt: bool = False
    dense: float = 0.2
    chat: float = 0.0
    short: float = 0.45


class Prompt:
    """Token ids of the vicuna_v1 prompt in the pieces training needs."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.prefix = tokenizer(f"{SYSTEM} USER: ").input_ids
        self.eos = tokenizer.eos_token_id
        self._cache: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 50_000:
                self._cache.clear()
            self._cache[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._cache[text]

    def shown_prefix(self, full: bool) -> tuple[list[int], list[int]]:
        """Ids and positions of the prefix; the short form keeps the first token and the last three."""
        position = list(range(len(self.prefix)))
        if not full:
            position = position[:1] + position[-3:]
        return [self.prefix[p] for p in position], position


class SceneBatches(IterableDataset):
    """Batches of a stage from step `first` on; the content depends on (seed, stage, step) alone, not on the workers."""

    def __init__(self, prompt: Prompt, stage: Stage, seed: int, first: int):
        self.prompt, self.stage, self.seed, self.first = prompt, stage, seed, first

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        for step in range(self.first + worker, self.stage.steps, workers):
            name = int.from_bytes(self.stage.name.encode()[:6], "little")
            yield self.batch(np.random.default_rng([self.seed, name, step]))

    def batch(self, rng: np.random.Generator) -> dict:
        stage, pixels, labels, index, texts = self.stage, [], [], [], []
        for _ in range(stage.batch):
            scene, asked = sample_example(rng, stage.level, IMAGE_SIZE, PATCH)
            image, owner = draw_scene(scene)
            pixels.append(np.asarray(image))
            labels.append(patch_labels(scene, owner))
            side, grid = scene.window.side, IMAGE_SIZE // PATCH
            rows, columns = np.divmod(np.arange(side * side), side)
            index.append((rows + scene.window.row) * grid + columns + scene.window.column)
            if stage.questions:
                texts.append(self.pack(asked, rng))
        batch = {
            "pixels": torch.from_numpy(np.stack(pixels)),
            "index": torch.from_numpy(np.stack(index)),
            "labels": {k: torch.from_numpy(np.stack([item[k] for item in labels])) for k in labels[0]},
        }
        if stage.questions:
            batch["text"] = self.collate(texts)
            batch["shown"] = torch.from_numpy(np.stack([self.shown(item, rng) for item in labels]))
        return batch

    def shown(self, labels: dict, rng: np.random.Generator) -> np.ndarray:
        """Window patches handed to the language model, ascending: those that show something first, then others at random."""
        n = len(labels["thing"])
        if self.stage.tokens is None or self.stage.tokens >= n:
            return np.arange(n)
        matters = (labels["thing"] != 0) | (labels["character"] != 0)
        return np.sort(np.argsort(rng.random(n) - matters)[: self.stage.tokens])

    def pack(self, asked: list, rng: np.random.Generator) -> dict:
        """Question blocks of one image, as independent single-turn prompts or as one conversation."""
        stage, prompt, ids, position, block, target = self.stage, self.prompt, [], [], [], []
        start = len(prompt.prefix) + (IMAGE_SIZE // PATCH) ** 2
        chat = rng.random() < stage.chat
        for k, q in enumerate(asked):
            short = q.kind not in LONG_ANSWERS and rng.random() < stage.short
            hint = NO_OCR if short and q.kind == "reading" and rng.random() < 0.6 else ""
            text = f"{q.text}{hint}{SHORT if short else ''} ASSISTANT:"
            question = prompt.ids(f"USER: {text}") if chat and k else prompt.ids(f"\n{text}")
            answer = prompt.ids(q.answer) + [prompt.eos]
            first = start + (len(ids) if chat else 0)
            ids += question + answer
            position += range(first, first + len(question) + len(answer))
            block += [1 if chat else k + 1] * (len(question) + len(answer))
            target += [-100] * (len(question) - 1) + answer + [-100]
        return {"ids": ids, "position": position, "block": block, "target": target, "kinds": [q.kind for q in asked]}

    def collate(self, texts: list[dict]) -> dict:
        longest = -(-max(len(t["ids"]) for t in texts) // 16) * 16
        fill = {"ids": 0, "position": 0, "block": -1, "target": -100}
        out = {k: torch.tensor([t[k] + [v] * (longest - len(t[k])) for t in texts]) for k, v in fill.items()}
        ids, position = self.prompt.shown_prefix(self.stage.full_prompt)
        out["prefix"], out["prefix_position"] = torch.tensor(ids), torch.tensor(position)
        out["kinds"] = [t["kinds"] for t in texts]
        out["prefix_full"] = torch.tensor(len(self.prompt.prefix))
        return out
