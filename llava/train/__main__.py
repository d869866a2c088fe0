"""`python -m llava.train run | evaluate | mini | tokenizer`: make llava-nano and the mini benchmarks, measure, ship."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from llava import commandline
from llava.errors import BadInput

ASSETS = Path(__file__).parents[1] / "assets" / "llava-nano"
DATA = Path(__file__).parents[2] / "playground" / "data" / "eval"


@dataclass(frozen=True)
class Run:
    """Train llava-nano; continues from the checkpoint in --folder."""

    folder: Path = Path("train-nano")
    """Where checkpoints and the log lie."""
    tokenizer: Path = ASSETS
    """Folder with the tokenizer."""
    output: Path = ASSETS
    """Folder the finished model is written to."""
    seed: int = 0
    """Seed of weights and scenes."""
    workers: int = 1
    """Processes that draw scenes."""
    minutes: float | None = None
    """Stop after this long, checkpointed; the next run continues."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained checkpoint on held-out full images and write the model folder with its card."""

    folder: Path = Path("train-nano")
    """Where the checkpoint and the log lie."""
    tokenizer: Path = ASSETS
    """Folder with the tokenizer."""
    output: Path = ASSETS
    """Folder the model is written to."""
    batches: int = 60
    """Batches of eight images."""


@dataclass(frozen=True)
class Mini:
    """Write the mini benchmarks in the official formats."""

    output: Path = DATA
    """Folder that holds one folder for each benchmark."""


@dataclass(frozen=True)
class Tokenizer:
    """Train the SentencePiece tokenizer (the weights belong to one tokenizer: train them anew afterwards)."""

    output: Path = ASSETS
    """Folder the tokenizer is written to."""
    vocab_size: int = 800
    """Pieces of the SentencePiece model."""


def trainer(config: Run | Evaluate, seed: int = 0, workers: int = 0, minutes: float | None = None):
    from transformers import AutoTokenizer

    from .curriculum import STAGES
    from .trainer import Trainer

    if not (config.tokenizer / "tokenizer.model").exists():
        raise BadInput(
            f"{config.tokenizer} has no tokenizer.model: make one with "
            f"`python -m llava.train tokenizer --output {config.tokenizer}`."
        )
    tokenizer = AutoTokenizer.from_pretrained(str(config.tokenizer))
    return Trainer(tokenizer, STAGES, config.folder, seed=seed, workers=workers, minutes=minutes)


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

    from .curriculum import EXAM
    from .evaluate import accuracy
    from .export import export

    if not (config.folder / "state.pt").exists():
        raise BadInput(
            f"{config.folder} has no checkpoint (state.pt): train with "
            f"`python -m llava.train run --folder {config.folder}`."
        )
    worker = trainer(config)
    trainee = worker.accelerator.unwrap_model(worker.trainee).eval().to(torch.bfloat16).float()  # as it is shipped
    model, log = trainee.model, [json.loads(line) for line in (config.folder / "log.jsonl").read_text().splitlines()]
    seen = accuracy(trainee, worker.prompt, EXAM, config.batches)
    blank = accuracy(trainee, worker.prompt, EXAM, config.batches, blank=True)
    started = [row for row in log if "hardware" in row]
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "decoder_layers": model.config.text_config.num_hidden_layers,
        "images": config.batches * EXAM.batch,
        "dtype": "float32",
        "accuracy": seen,
        "blank": blank,
        "training": {
            "hours": worker.state.seconds / 3600,
            "images": worker.state.images,
            "hardware": "; ".join(sorted({", ".join(row["hardware"].values()) for row in started})),
        },
    }
    export(model, config.output, log, card)
    for kind, (share, number) in seen.items():
        commandline.say(f"{kind:12s} {100 * share:5.1f} %   blank {100 * blank[kind][0]:5.1f} %   n={number}")


def mini(config: Mini) -> None:
    from .mini import write_all

    for name, number in write_all(config.output).items():
        commandline.say(f"{config.output / name / 'mini'}: {number} questions")


def make_tokenizer(config: Tokenizer) -> None:
    from .tokenizer import train_tokenizer

    train_tokenizer(config.output, config.vocab_size)
    commandline.say(f"Tokenizer written to {config.output}")


COMMANDS = {
    "run": (run, Run),
    "evaluate": (evaluate, Evaluate),
    "mini": (mini, Mini),
    "tokenizer": (make_tokenizer, Tokenizer),
}


def main(argv: list[str] | None = None) -> int:
    return commandline.run_command(COMMANDS, "llava.train", argv)


if __name__ == "__main__":
    sys.exit(main())
