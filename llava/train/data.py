"""Batches for training: scenes drawn on the fly, questions packed behind one image; (seed, step) decides all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from .drills import sample_drills
from .examples import Difficulty, sample_example
from .guidance import option_spans
from .nano import DENSE_CLASSES, IMAGE_SIZE, PATCH
from .questions import NO_OCR, SHORT, pick
from .scenes import draw_scene, patch_labels
from .tokenizer import SYSTEM
from .videos import ACTIONS, practice, sample_clip
from .wide import EMPHASES, sample_wide

LONG_ANSWERS = ("caption",)
DRILLS = 8  # exercises in a row of a batch of them


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
        chat: share of batches in which an image's questions form one conversation instead of independent blocks.
        short: share of questions that carry the single-word sentence of the benchmarks.
        longest: a question with its answer that needs more tokens is left out.
        jpeg: share of images that pass through JPEG, as the benchmarks' images do.
        wide: questions for the abilities of all benchmarks, instead of those of the first curriculum.
        long: share of batches with long questions (multiple choice, unanswerable); they are `wide` ones.
        long_questions: number of them for each image.
        longest_long: `longest` of them.
        drills: share of batches with text-only exercises.
        longest_drill: `longest` of them.
        turns: whether questions bring their further turns along.
        emphasis: what comes more often than in the benchmarks, a name in `wide.EMPHASES`.
        guide: weight of the loss that shows a head which option to look at (guidance.py).
        clips: share of batches with questions about short videos, shown as a grid of frames on the whole canvas.
        average: the weights after it are the mean of this many, taken at equal distances from its beginning to its end;
            1 for those at its end.
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
    longest: int = 64
    jpeg: float = 0.0
    wide: bool = False
    long: float = 0.0
    long_questions: int = 5
    longest_long: int = 120
    drills: float = 0.0
    longest_drill: int = 64
    clips: float = 0.0
    turns: bool = True
    guide: float = 0.0
    emphasis: str = ""
    average: int = 1


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image as it comes back from a JPEG file."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@dataclass(frozen=True)
class Block:
    """A question and its answer as token ids; `target` is the next id where it is to be learned, else -100.

    `looks`: for each answer that is an option's letter, the token that predicts it and where the option's words are.
    """

    kind: str
    ids: list[int]
    target: list[int]
    looks: tuple[tuple[int, int, int], ...] = ()


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
            yield self.batch(np.random.default_rng([self.seed, crc32(self.stage.name.encode()), step]))

    def batch(self, rng: np.random.Generator) -> dict:
        stage, pixels, labels, index, texts = self.stage, [], [], [], []
        if stage.clips and rng.random() < stage.clips:
            return self.clip_batch(rng)
        chat = rng.random() < stage.chat
        drilled = stage.wide and rng.random() < stage.drills
        long = stage.wide and (rng.random() < stage.long or drilled)
        if long:
            chat, level = False, replace(stage.level, questions=stage.long_questions)
            longest = stage.longest_drill if drilled else stage.longest_long
        else:
            level, longest = stage.level, stage.longest
        for _ in range(stage.batch):
            if drilled:
                scene, asked = sample_drills(rng, DRILLS, IMAGE_SIZE, PATCH)
            elif stage.wide:
                scene, asked = sample_wide(rng, level, IMAGE_SIZE, PATCH, long, EMPHASES[stage.emphasis])
            else:
                scene, asked = sample_example(rng, level, IMAGE_SIZE, PATCH)
            image, owner = draw_scene(scene)
            if rng.random() < stage.jpeg:
                image = through_jpeg(image, int(rng.integers(60, 96)))
            pixels.append(np.asarray(image))
            labels.append(patch_labels(scene, owner))
            side, grid = scene.window.side, IMAGE_SIZE // PATCH
            rows, columns = np.divmod(np.arange(side * side), side)
            index.append((rows + scene.window.row) * grid + columns + scene.window.column)
            if stage.questions:
                texts.append(self.pack(asked, rng, chat, longest))
        return self.batched(rng, pixels, labels, index, texts, stage.tokens)

    def clip_batch(self, rng: np.random.Generator) -> dict:
        """Clips as grids of frames; patches without a thing are all that dense labels cover."""
        stage, pixels, labels, texts = self.stage, [], [], []
        side = IMAGE_SIZE // PATCH
        for _ in range(stage.batch):
            clip = sample_clip(rng, pick(rng, ACTIONS))
            image, owner = clip.grid(IMAGE_SIZE)
            pixels.append(np.asarray(through_jpeg(image, int(rng.integers(60, 96)))))
            covered = owner.reshape(side, PATCH, side, PATCH).any((1, 3)).ravel()
            empty = np.where(covered, -100, 0)
            unknown = np.full_like(empty, -100)
            labels.append({name: empty if name in ("thing", "character") else unknown for name in DENSE_CLASSES})
            texts.append(self.pack(practice(clip, rng), rng, False, stage.longest))
        index = [np.arange(side * side)] * stage.batch
        return self.batched(rng, pixels, labels, index, texts, stage.tokens and 2 * stage.tokens)

    def batched(
        self,
        rng: np.random.Generator,
        pixels: list[np.ndarray],
        labels: list[dict[str, np.ndarray]],
        index: list[np.ndarray],
        texts: list[list[Block]],
        tokens: int | None,
    ) -> dict:
        """Stack the images of a batch; `tokens` patches of each go to the language model, None for all."""
        batch = {
            "pixels": torch.from_numpy(np.stack(pixels)),
            "index": torch.from_numpy(np.stack(index)),
            "labels": {k: torch.from_numpy(np.stack([item[k] for item in labels])) for k in labels[0]},
        }
        if self.stage.questions:
            batch["text"] = self.collate(texts)
            batch["shown"] = torch.from_numpy(np.stack([self.shown(item, rng, tokens) for item in labels]))
        return batch

    def shown(self, labels: dict, rng: np.random.Generator, tokens: int | None) -> np.ndarray:
        """Window patches handed to the language model, ascending: those that show something, then others at random."""
        n = len(labels["thing"])
        if tokens is None or tokens >= n:
            return np.arange(n)
        matters = (labels["thing"] != 0) | (labels["character"] != 0)
        return np.sort(np.argsort(rng.random(n) - matters)[:tokens])

    def pack(self, asked: list, rng: np.random.Generator, chat: bool, longest: int) -> list[Block]:
        """Question blocks of one image: independent single-turn prompts, or one block with the whole conversation.

        A question with its answer that needs more than `longest` tokens is left out.
        """
        stage, prompt = self.stage, self.prompt
        blocks: list[Block] = []
        for q in asked:
            short = q.kind not in LONG_ANSWERS and rng.random() < stage.short
            hint = NO_OCR if short and q.kind == "reading" and rng.random() < 0.6 else ""
            ending = q.ending if q.ending is not None else hint + (SHORT if short else "")
            text = f"{q.text}{ending} ASSISTANT:"
            question = prompt.ids(f"USER: {text}") if chat and blocks else prompt.ids(f"\n{text}")
            answer = prompt.ids(q.answer) + [prompt.eos]
            options = option_spans(f"\n{q.text}", lambda beginning: len(prompt.ids(beginning)))
            looks = [(len(question) - 1, *options[q.answer])] if q.answer in options and not chat else []
            ids, target = question + answer, [-100] * (len(question) - 1) + answer
            for further, said in q.follow if stage.turns else ():
                turn, answer = prompt.ids(f"USER: {further} ASSISTANT:"), [*prompt.ids(said), prompt.eos]
                ids, target = ids + turn + answer, target + [-100] * len(turn) + answer
                if said in options and not chat:
                    looks.append((len(ids) - len(answer) - 1, *options[said]))
            if len(ids) <= longest:
                blocks.append(Block(q.kind, ids, [*target, -100], tuple(looks)))
        if chat and blocks:
            joined = sum((b.ids for b in blocks), []), sum((b.target for b in blocks), [])
            blocks = [Block("chat", *joined)]
        return blocks

    def collate(self, images: list[list[Block]]) -> dict:
        """Pad to the same number of blocks of the same length; kinds stay a list for each image."""
        most = max(1, max(len(blocks) for blocks in images))
        longest = -(-max((len(b.ids) for blocks in images for b in blocks), default=1) // 4) * 4
        ids = torch.full((len(images), most, longest), self.prompt.eos)
        target = torch.full_like(ids, -100)
        looks: list[tuple[int, ...]] = []
        for row, blocks in enumerate(images):
            for column, block in enumerate(blocks):
                looks += [(row, column, *look) for look in block.looks]
                ids[row, column, : len(block.ids)] = torch.tensor(block.ids)
                target[row, column, : len(block.ids)] = torch.tensor(block.target)
        first = len(self.prompt.prefix) + (IMAGE_SIZE // PATCH) ** 2
        shown, position = self.prompt.shown_prefix(self.stage.full_prompt)
        return {
            "ids": ids,
            "target": target,
            "position": (first + torch.arange(longest)).expand_as(ids),
            "prefix": torch.tensor(shown),
            "prefix_position": torch.tensor(position),
            "prefix_full": torch.tensor(len(self.prompt.prefix)),
            "looks": torch.tensor(looks, dtype=torch.long).reshape(-1, 5),
            "kinds": [[b.kind for b in blocks] for blocks in images],
        }
