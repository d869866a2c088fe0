"""The trainer of llava-nano: runs a curriculum of stages on CPU or GPU, checkpoints often, resumes by default."""

from __future__ import annotations

import json
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration

from .data import Prompt, SceneBatches, Stage
from .export import HEADS
from .nano import Trainee, initial_model, nano_config

KEPT = "weights-{step}.pt"
"""Weights of a stage whose weights are averaged, until its end."""


@dataclass
class State:
    """Where training stands; saved with every checkpoint."""

    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    images: int = 0


def learning_rate(stage: Stage, step: int, warmup: int = 40) -> float:
    """Linear warm-up, then a half cosine down to a tenth of the stage's peak."""
    if step < warmup:
        return stage.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, stage.steps - warmup)
    return stage.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress))))


def averaged_steps(stage: Stage) -> set[int]:
    """After which steps the weights go into the mean that ends a stage; none if its last ones are taken."""
    gaps = stage.average - 1
    return {round(stage.steps * k / gaps) for k in range(stage.average)} if gaps > 0 else set()


def optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks, AdamW for everything else (embeddings, norms, heads)."""
    blocks: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in trainee.named_parameters():
        inside = ".layers." in name or "multi_modal_projector" in name
        (blocks if inside and parameter.ndim == 2 else rest).append(parameter)
    return [
        torch.optim.Muon(blocks, lr=1e-3, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02),
    ]


class Trainer:
    """Trains through `stages`; weights, optimisers and position lie in `folder`, the log in `folder/log.jsonl`."""

    def __init__(
        self,
        tokenizer,
        stages: list[Stage],
        folder: Path,
        seed: int = 0,
        workers: int = 1,
        minutes: float | None = None,
        checkpoint_seconds: float = 120,
        start: Path | None = None,
        compiled: bool = False,
    ):
        self.accelerator = Accelerator(mixed_precision="bf16")
        self.prompt, self.stages, self.folder, self.seed, self.workers = (
            Prompt(tokenizer),
            stages,
            folder,
            seed,
            workers,
        )
        self.checkpoint_seconds = checkpoint_seconds
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.trainee = Trainee(initial_model(nano_config(tokenizer), seed))
        self.state, fresh = State(), not (folder / "state.pt").exists()
        if start and fresh:
            self.state = begin_from(start, self.trainee)
        self.optimizers = optimizers(self.trainee)
        self.trainee, *self.optimizers = self.accelerator.prepare(self.trainee, *self.optimizers)
        if compiled:
            compile_blocks(self.accelerator.unwrap_model(self.trainee))
        folder.mkdir(parents=True, exist_ok=True)
        if not fresh:
            self.load()
        elif start and (start / "training_log.json").exists():
            for row in json.loads((start / "training_log.json").read_text(encoding="utf-8")):
                self.log(row)

    def load(self) -> None:
        saved = torch.load(self.folder / "state.pt", map_location=self.accelerator.device, weights_only=True)
        self.accelerator.unwrap_model(self.trainee).load_state_dict(saved["trainee"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=False):
            optimizer.load_state_dict(state)
        self.state = State(**saved["state"])

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it, so that an interruption leaves a whole file."""
        if not self.accelerator.is_main_process:
            return
        new = self.folder / "state.pt.new"
        torch.save(
            {
                "trainee": self.accelerator.unwrap_model(self.trainee).state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "state": asdict(self.state),
            },
            new,
        )
        new.replace(self.folder / "state.pt")

    def log(self, row: dict) -> None:
        if self.accelerator.is_main_process:
            with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def run(self) -> bool:
        """Run all stages from where the state stands; False when the time was up before the end."""
        self.log({"stage": "start", **asdict(self.state), "hardware": hardware()})
        while self.state.stage < len(self.stages):
            stage = self.stages[self.state.stage]
            finished = self.run_stage(stage)
            self.save()
            if not finished:
                return False
            self.average(stage)
            self.state = replace(self.state, stage=self.state.stage + 1, step=0)
            self.save()
            if self.accelerator.is_main_process:  # only now: an interruption before would want them again
                for file in self.folder.glob(KEPT.format(step="*")):
                    file.unlink()
        return True

    def keep(self, stage: Stage) -> None:
        """Write the weights down if they are among those that a stage averages."""
        if self.state.step in averaged_steps(stage) and self.accelerator.is_main_process:
            weights = self.accelerator.unwrap_model(self.trainee).state_dict()
            torch.save(weights, self.folder / KEPT.format(step=self.state.step))

    def average(self, stage: Stage) -> None:
        """Take the mean of the weights a stage has kept: small batches leave noise that it takes out."""
        self.accelerator.wait_for_everyone()
        steps = sorted(averaged_steps(stage))
        if not steps:
            return
        files, device = [self.folder / KEPT.format(step=step) for step in steps], self.accelerator.device
        kept = [torch.load(file, map_location=device, weights_only=True) for file in files]
        for name, value in self.accelerator.unwrap_model(self.trainee).state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.stack([weights[name] for weights in kept]).mean(0))
        self.log({**asdict(self.state), "stage": "average", "seconds": round(self.state.seconds), "of": steps})

    def run_stage(self, stage: Stage) -> bool:
        loader = DataLoader(
            SceneBatches(self.prompt, stage, self.seed, self.state.step), batch_size=None, num_workers=self.workers
        )
        began, saved = time.monotonic(), time.monotonic()
        base, count = self.state.seconds, 0
        seen: dict[str, list[float]] = {}
        bar = tqdm(total=stage.steps, initial=self.state.step, desc=stage.name, mininterval=10)
        self.keep(stage)
        for batch in loader:
            rate = learning_rate(stage, self.state.step)
            for key, value in self.step(stage, batch, rate).items():
                seen.setdefault(key, []).append(float(value))
            count += 1
            self.state.step += 1
            self.state.images += stage.batch
            self.keep(stage)
            now = time.monotonic()
            self.state.seconds = base + now - began
            bar.update()
            if count == 25 or self.state.step == stage.steps:
                means = {k: round(fmean(v), 4) for k, v in seen.items()}
                self.log(
                    {
                        **asdict(self.state),
                        "stage": stage.name,
                        "seconds": round(self.state.seconds),
                        "lr": rate,
                        **means,
                    }
                )
                bar.set_postfix(means)
                seen, count = {}, 0
            if now - saved > self.checkpoint_seconds:
                self.save()
                saved = now
            if now > self.deadline:
                break
        bar.close()
        return self.state.step >= stage.steps

    def step(self, stage: Stage, batch: dict, rate: float) -> dict:
        batch = to_device(batch, self.accelerator.device)
        trainee = self.accelerator.unwrap_model(self.trainee)
        with self.accelerator.autocast():
            features = trainee.features(batch["pixels"], batch["index"])
            dense, accuracy = trainee.dense_loss(features, batch["labels"])
            metrics = {
                "dense": dense.detach(),
                **{k: v for k, v in accuracy.items() if k in ("thing", "center", "character", "place")},
            }
            loss = dense
            if stage.questions:
                shown = batch["shown"]
                chosen = features.gather(1, shown[..., None].expand(-1, -1, features.shape[-1]))
                logits, target = trainee.answers(chosen, batch["index"].gather(1, shown), batch["text"])
                answers = F.cross_entropy(logits, target)
                loss = answers + stage.dense * dense
                if stage.guide and trainee.guide.loss is not None:
                    loss = loss + stage.guide * trainee.guide.loss
                    metrics["guide"] = trainee.guide.loss.detach()
                metrics |= {"answers": answers.detach(), "token_accuracy": (logits.argmax(-1) == target).float().mean()}
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return metrics


def compile_blocks(trainee: Trainee) -> None:
    """Compile every transformer block in place, for sizes of any kind; weights and their names stay as they are."""
    # Windows, grids of frames and exercises differ in more ways than the few that are compiled for by default.
    torch._dynamo.config.recompile_limit = 64
    model = trainee.model.model
    for block in (*model.vision_tower.encoder.layers, *model.language_model.layers):
        if not hasattr(getattr(block, "self_attn", None), "guide"):  # this one keeps something for the loss
            block.compile(dynamic=True)


def begin_from(folder: Path, trainee: Trainee) -> State:
    """Load the model of `folder` and its dense heads, if there; returns a state that counts on from its card."""
    trainee.model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(folder).float().state_dict())
    if (folder / HEADS).exists():
        trainee.heads.load_state_dict(load_file(folder / HEADS), strict=False)  # labels may have come since
    card = folder / "card.json"
    if not card.exists():
        return State()
    training = json.loads(card.read_text(encoding="utf-8"))["training"]
    return State(seconds=3600 * training["hours"], images=training["images"])


def to_device(batch: dict, device: torch.device) -> dict:
    moved = {}
    for key, value in batch.items():
        if isinstance(value, dict):
            value = to_device(value, device)
        elif isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=True)
        moved[key] = value
    return moved


def hardware() -> dict:
    """What the training ran on, for the log."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
