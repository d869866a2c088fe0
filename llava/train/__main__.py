"""`python -m llava.train run | evaluate | mini | tokenizer | grow`: make llava-nano and its benchmarks, ship them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llava import commandline
from llava.errors import BadInput

ASSETS = Path(__file__).parents[1] / "assets" / "llava-nano"
DATA = Path(__file__).parents[2] / "playground" / "data" / "eval"


@dataclass(frozen=True)
class Run:
    """Train llava-nano; continues from the checkpoint in --folder."""

    folder: Path = Path("train-nano")
    """Where checkpoints and the log lie."""
    start: Path | None = None
    """Model folder (weights and tokenizer) the training begins from; none: from scratch."""
    curriculum: Literal["first", "wide"] = "first"
    """Stages to run: those from scratch, or those that go on from trained weights to all benchmarks' abilities."""
    tokenizer: Path | None = None
    """Folder with the tokenizer; default: that of --start, else the shipped one."""
    output: Path = ASSETS
    """Folder the finished model is written to."""
    seed: int = 0
    """Seed of weights and scenes."""
    workers: int = 1
    """Processes that draw scenes."""
    minutes: float | None = None
    """Stop after this long, checkpointed; the next run continues."""
    compile: bool = False
    """Compile the transformer blocks: minutes to begin, then about twice as fast (CPU: needs a C++ compiler)."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained checkpoint on held-out full images and write the model folder with its card."""

    folder: Path = Path("train-nano")
    """Where the checkpoint and the log lie."""
    tokenizer: Path | None = None
    """Folder with the tokenizer; default: the training's own, else the shipped one."""
    output: Path = ASSETS
    """Folder the model is written to."""
    batches: int = 75
    """Batches of eight images of each of the two exams."""


@dataclass(frozen=True)
class Mini:
    """Write the mini benchmarks in the official formats."""

    output: Path = DATA
    """Folder that holds one folder for each benchmark."""
    only: tuple[str, ...] = ()
    """Folders of the benchmarks to write; none: all."""


@dataclass(frozen=True)
class Tokenizer:
    """Train the SentencePiece tokenizer (the weights belong to one tokenizer: train them anew afterwards)."""

    output: Path = ASSETS
    """Folder the tokenizer is written to."""
    vocab_size: int = 800
    """Pieces of the SentencePiece model."""


@dataclass(frozen=True)
class Grow:
    """Write a model folder whose vocabulary covers the wide curriculum, to begin `run --start` from."""

    output: Path
    """Folder the grown model and its tokenizer are written to."""
    source: Path = ASSETS
    """Model folder that is grown; its pieces keep their ids."""
    vocab_size: int = 1024
    """Pieces of the grown tokenizer, at most."""
    checkpoint: Path | None = None
    """Training folder whose unrounded weights (and dense heads) are taken instead of the model folder's."""


def own_tokenizer(config: Run | Evaluate) -> Path:
    """The tokenizer's folder: asked for, that of the training, that of its start, the shipped one."""
    places = [config.tokenizer, config.folder, getattr(config, "start", None), ASSETS]
    return config.tokenizer or next(p for p in places if p and ((p / "tokenizer.model").exists() or p == ASSETS))


def trainer(config: Run | Evaluate, seed: int = 0, workers: int = 0, minutes: float | None = None):
    from transformers import AutoTokenizer

    from .curriculum import CURRICULA
    from .trainer import Trainer
    from .vocabulary import copy_tokenizer

    folder, start = own_tokenizer(config), getattr(config, "start", None)
    if not (folder / "tokenizer.model").exists():
        raise BadInput(
            f"{folder} has no tokenizer.model: make one with `python -m llava.train tokenizer --output {folder}`."
        )
    if start and not (start / "config.json").exists():
        raise BadInput(f"{start} is no model folder (no config.json): make one with `python -m llava.train grow`.")
    stages = CURRICULA[getattr(config, "curriculum", "first")]
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if start:
        copy_tokenizer(folder, config.folder)
    compiled = getattr(config, "compile", False)
    return Trainer(
        tokenizer, stages, config.folder, seed=seed, workers=workers, minutes=minutes, start=start, compiled=compiled
    )


def run(config: Run) -> None:
    worker = trainer(config, config.seed, config.workers, config.minutes)
    if worker.run():
        evaluate(Evaluate(config.folder, config.tokenizer, config.output))
    else:
        commandline.say(
            f"Stopped after stage {worker.state.stage}, step {worker.state.step}; the same command continues."
        )


def evaluate(config: Evaluate) -> None:
    import torch

    from .curriculum import EXAM, WIDE_EXAM
    from .evaluate import by_ability
    from .export import export
    from .vocabulary import copy_tokenizer

    if not (config.folder / "state.pt").exists():
        raise BadInput(
            f"{config.folder} has no checkpoint (state.pt): train with "
            f"`python -m llava.train run --folder {config.folder}`."
        )
    worker = trainer(config)
    trainee = worker.accelerator.unwrap_model(worker.trainee).eval().to(torch.bfloat16).float()  # as it is shipped
    model, log = trainee.model, [json.loads(line) for line in (config.folder / "log.jsonl").read_text().splitlines()]
    exams = (EXAM, WIDE_EXAM)
    seen = by_ability(trainee, worker.prompt, exams, config.batches)
    blank = by_ability(trainee, worker.prompt, exams, config.batches, blank=True)
    started = [row for row in log if "hardware" in row]
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "decoder_layers": model.config.text_config.num_hidden_layers,
        "images": sum(config.batches * exam.batch for exam in exams),
        "dtype": "float32",
        "accuracy": seen,
        "blank": blank,
        "training": {
            "hours": worker.state.seconds / 3600,
            "images": worker.state.images,
            "hardware": "; ".join(sorted({", ".join(row["hardware"].values()) for row in started})),
        },
    }
    copy_tokenizer(own_tokenizer(config), config.output)
    export(model, config.output, log, card)
    for kind, (share, number) in seen.items():
        commandline.say(f"{kind:24s} {100 * share:5.1f} %   blank {100 * blank[kind][0]:5.1f} %   n={number}")


def mini(config: Mini) -> None:
    from .mini import WRITERS, write_all

    unknown = sorted(set(config.only) - set(WRITERS))
    if unknown:
        raise BadInput(f"No mini benchmark {', '.join(unknown)}; there are: {', '.join(WRITERS)}.")
    for name, number in write_all(config.output, only=config.only).items():
        commandline.say(f"{config.output / name / 'mini'}: {number} questions")


def make_tokenizer(config: Tokenizer) -> None:
    from .tokenizer import train_tokenizer

    train_tokenizer(config.output, config.vocab_size)
    commandline.say(f"Tokenizer written to {config.output}")


def grow(config: Grow) -> None:
    from .vocabulary import grow_folder

    if config.checkpoint and not (config.checkpoint / "state.pt").exists():
        raise BadInput(f"{config.checkpoint} has no checkpoint (state.pt): give the folder of a training.")
    number = grow_folder(config.source, config.output, config.vocab_size, config.checkpoint)
    commandline.say(f"{number} new pieces; model and tokenizer written to {config.output}")


COMMANDS: dict[str, tuple[Callable[[Any], int | None], type]] = {
    "run": (run, Run),
    "evaluate": (evaluate, Evaluate),
    "mini": (mini, Mini),
    "tokenizer": (make_tokenizer, Tokenizer),
    "grow": (grow, Grow),
}


def main(argv: list[str] | None = None) -> int:
    return commandline.run_command(COMMANDS, "llava.train", argv)


if __name__ == "__main__":
    sys.exit(main())
