"""`python -m llava.bench prefill`: prefill speed on random weights of any size, CPU or GPU, no download."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from llava import commandline
from llava.errors import ConfigurationError, LlavaError


@dataclass(frozen=True)
class Prefill:
    """Time the prefill of methods against the unpruned model, interleaved in one process."""

    shape: str = "small"
    """Model size: small, llava-1.5-7b, llava-1.5-13b, llava-next-7b, qwen2-vl-7b."""
    layers: int | None = None
    """Build only so many decoder layers; selection is still given as a share of the whole prefill, extrapolated."""
    tower: str | None = None
    """Vision tower, tiny or clip-l; default: clip-l for LLaVA-NeXT, else tiny: the decoder is all that counts."""
    tokens: int = 2880
    """Visual tokens of the image (the nearest number that the shape can make is used)."""
    keep: int = 320
    """Visual tokens to keep."""
    layer: int = 2
    """Decoder layer whose input is cut."""
    text: int = 60
    """Text tokens, half before and half after the image."""
    batch: int = 1
    """Prompts at a time."""
    methods: str = "dart,random"
    """Methods, separated by commas, or `all`; the unpruned model is always measured."""
    repeats: int = 7
    """Counted rounds."""
    warmup: int = 2
    """Rounds before counting."""
    dtype: str = "auto"
    """float32, bfloat16, float16; auto: float32 on CPU, bfloat16 on CUDA."""
    device: str = "auto"
    """cpu or cuda."""
    attn_implementation: str = "sdpa"
    """sdpa, eager or flash_attention_2."""
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        from .shapes import SHAPES, TOWERS

        found = [
            f"--{name} {value}: give a whole number of at least {low}."
            for name, value, low in (
                ("tokens", self.tokens, 4),
                ("keep", self.keep, 1),
                ("text", self.text, 4),
                ("batch", self.batch, 1),
                ("repeats", self.repeats, 1),
                ("warmup", self.warmup, 0),
            )
            if value < low
        ]
        if self.shape not in SHAPES:
            found.append(f"Unknown shape {self.shape!r}. Known: {', '.join(SHAPES)}.")
        elif self.layers is not None and not 3 <= self.layers <= SHAPES[self.shape].layers:
            found.append(f"--layers {self.layers}: give 3 to {SHAPES[self.shape].layers} for {self.shape}.")
        if self.tower is not None and self.tower not in TOWERS:
            found.append(f"Unknown tower {self.tower!r}. Known: {', '.join(TOWERS)}.")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            found.append(f"Unknown dtype {self.dtype!r}. Known: auto, float32, bfloat16, float16.")
        return found


def build_methods(config: Prefill) -> dict:
    """Label -> method, the unpruned one first; all mistakes of all methods together."""
    from llava.reduction import registry
    from llava.reduction.base import InLLM

    built, problems = {"none": registry.create("none")}, []
    names = registry.names() if config.methods == "all" else config.methods.split(",")
    for name in dict.fromkeys(part.strip() for part in names if part.strip()):
        if name == "none":
            continue
        try:
            kind = registry.get(name)
            cuts_once = issubclass(kind, InLLM) and "layer" in {field.name for field in fields(kind)}
            layer = {"layer": config.layer} if cuts_once else {}
            built[name] = registry.create(name, keep=config.keep, **layer)
        except LlavaError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError(*problems)
    return built


def environment(device, dtype) -> dict:
    """Where a measurement was made."""
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "cpu_count": os.cpu_count(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def table(rows: list[dict]) -> list[str]:
    """Lines for the screen, one for each method below the heading."""
    columns = (14, 7, 27, 21, 10, 10, 18)
    cells = [("method", "kept", "prefill ms (quartiles)", "speed-up (quartiles)", "LLM only", "FLOPs say", "selection")]
    for row in rows:
        t, s, selection = row["prefill_seconds"], row["speedup"], row["selection_seconds"]["median"]
        cells.append(
            (
                row["method"],
                str(row["final"][0]),
                f"{1e3 * t['median']:.1f} ({1e3 * t['low']:.1f}-{1e3 * t['high']:.1f})",
                f"{s['median']:.2f}x ({s['low']:.2f}-{s['high']:.2f})",
                f"{row['llm_speedup']:.2f}x",
                f"{row['flops_ratio']:.2f}x",
                f"{1e3 * selection:.2f} ms {row['selection_share']:6.2%}",
            )
        )
    return ["".join(cell.rjust(width) for cell, width in zip(line, columns, strict=True)) for line in cells]


def prefill(config: Prefill) -> None:
    import torch

    from . import shapes
    from .prefill import measure

    methods = build_methods(config)
    device = torch.device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    kind = config.dtype if config.dtype != "auto" else "bfloat16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, kind)
    shape = shapes.named(config.shape, config.layers, config.tower)
    model = shapes.random_model(shape, config.tokens, dtype, device, config.attn_implementation)
    inputs = shapes.random_inputs(model, config.text // 2, config.text - config.text // 2, config.batch)
    of_layers = None if config.layers is None else shapes.named(config.shape).layers
    rows = measure(model, inputs, methods, config.repeats, config.warmup, of_layers, say=commandline.warn)
    commandline.say(
        f"{config.shape}, {model.config.image_seq_length} visual tokens, batch {config.batch}, {kind}, "
        f"{config.attn_implementation}"
    )
    for line in table(rows):
        commandline.say(line)
    if config.output:
        options = {k: v for k, v in asdict(config).items() if k != "output"}
        result = {"bench": "prefill", "options": options, "environment": environment(device, dtype), "rows": rows}
        config.output.parent.mkdir(parents=True, exist_ok=True)
        config.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        commandline.say(f"Raw result: {config.output}")


COMMANDS = {"prefill": (prefill, Prefill)}


def main(argv: list[str] | None = None) -> int:
    return commandline.run_command(COMMANDS, "llava.bench", argv)


if __name__ == "__main__":
    sys.exit(main())
