"""The model and the prompts of a measurement, and where it is made."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llava.bench import costs, sizes
from llava.bench.options import EMBEDDED, POPE, TEXT, TOKENS, ModelOptions, PromptOptions
from llava.bench.trials import told_when_too_large
from llava.errors import BadInput
from llava.model.families import family_of
from llava.model.families.base import Family

if TYPE_CHECKING:
    from llava.eval.benchmarks.base import Question


@dataclass
class Subject:
    """What is measured.

    Args:
        model: a vision-language model in eval mode.
        family: its adapter.
        inputs: of `model.generate()`, the same for every repeat.
        text_layers: decoder layers of the whole model, of which `model` may be a slice.
        processor, questions: of a checkpoint; questions are those of `inputs` and more.
        n_text: text tokens of a prompt for random weights.
        facts: plain JSON for the result.
    """

    model: Any
    family: Family
    inputs: dict[str, Any]
    text_layers: int
    processor: Any = None
    questions: Sequence[Question] = ()
    n_text: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def layers(self) -> int:
        """Decoder layers that are there."""
        layers: Any = self.family.decoder(self.model).layers
        return len(layers)

    def tower_flops(self) -> int | None:
        """Operations of the vision tower for `inputs`; None where its sizes are not known."""
        return costs.tower_flops(self.model, self.family, self.inputs)


def build(model: ModelOptions, prompt: PromptOptions, n_questions: int | None = None) -> Subject:
    """Return the subject that checked options describe.

    Args:
        n_questions: of a checkpoint, questions to have at hand; default: one batch.

    Raises:
        LlavaError: the checkpoint or the questions cannot be had, or the model does not fit into the memory.
    """
    with told_when_too_large(model.name):
        if model.is_random:
            return random_subject(model, prompt)
        return checkpoint(model, prompt, n_questions or prompt.batch)


def random_subject(options: ModelOptions, prompt: PromptOptions) -> Subject:
    """A model of random weights, and a prompt of random tokens with one random image."""
    from llava.bench import shapes

    shape = sizes.named(options.shape_name, options.layers, options.tower)
    device = device_of(options)
    dtype = dtype_of(options, device)
    model = shapes.random_model(shape, prompt.tokens or TOKENS, dtype, device, prompt.attn_implementation or "sdpa")
    n_text = prompt.text or TEXT
    whole = sizes.named(options.shape_name).layers
    facts = {
        "model": options.shape_name,
        "weights": "random",
        "layers": shape.layers,
        "layers_of_whole_model": whole,
        "tower": shape.tower,
        "visual_tokens": model.config.image_seq_length,
    }
    return with_batch(Subject(model, family_of(model), {}, whole, n_text=n_text, facts=facts), prompt.batch)


def checkpoint(options: ModelOptions, prompt: PromptOptions, n_questions: int) -> Subject:
    """A checkpoint, and questions of a benchmark."""
    from llava.eval import benchmarks, data

    dataset = data.locate(benchmarks.get(prompt.benchmark or POPE), prompt.data)
    data.load_questions([dataset], "llava", n_questions)  # missing files are known before the model is loaded
    loaded, processor = load(options, prompt.attn_implementation)
    (questions,) = data.load_questions([dataset], processor.family, n_questions)
    if len(questions) < prompt.batch:
        raise BadInput(
            f"--batch {prompt.batch}: {dataset.benchmark.title} ({dataset.kind}) has {len(questions)} questions only."
        )
    subject = Subject(loaded, family_of(loaded), {}, 0, processor, questions)
    subject.text_layers = subject.layers
    subject.facts = {
        "model": model_name(options),
        "weights": "checkpoint",
        "layers": subject.layers,
        "benchmark": dataset.benchmark.name,
        "split": dataset.kind,
        "longest_answer": dataset.benchmark.max_new_tokens,
        "family": processor.family,
    }
    return with_batch(subject, prompt.batch)


def with_batch(subject: Subject, batch: int) -> Subject:
    """The same model with a prompt of `batch` samples: random tokens, or the first questions."""
    if subject.processor is None:
        from llava.bench import shapes

        inputs = shapes.random_inputs(subject.model, subject.n_text // 2, subject.n_text - subject.n_text // 2, batch)
    else:
        from llava.eval.generation import model_inputs
        from llava.eval.prefetch import open_media

        first = subject.questions[:batch]
        inputs = dict(model_inputs(subject.processor, first, [open_media(subject.processor, one) for one in first]))
    subject = replace(subject, inputs=inputs)
    subject.facts = {
        **subject.facts,
        "batch": batch,
        "prompt_tokens": int(inputs["input_ids"].shape[1]),
        "weights_bytes": sum(tensor.nbytes for tensor in subject.model.parameters()),
        "tower_flops": subject.tower_flops(),
    }
    return subject


def load(options: ModelOptions, attention: str | None) -> tuple[Any, Any]:
    """Return model and processor of a checkpoint."""
    import llava

    return llava.load(
        None if options.model_path == EMBEDDED else options.model_path,
        device=None if options.device == "auto" else options.device,
        dtype=None if options.dtype == "auto" else options.dtype,
        attn_implementation=attention,
    )


def model_name(options: ModelOptions) -> str:
    """Return the short name of a checkpoint."""
    from llava.model.checkpoints import EMBEDDED as FOLDER

    path = FOLDER if options.model_path == EMBEDDED else Path(str(options.model_path)).resolve()
    return path.name


def device_of(options: ModelOptions) -> torch.device:
    """Return the device that the options mean."""
    chosen = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(chosen)


def dtype_of(options: ModelOptions, device: torch.device) -> torch.dtype:
    """Return the dtype of random weights."""
    from llava.model.placement import DTYPES

    automatic = "bfloat16" if device.type == "cuda" else "float32"
    chosen: Any = DTYPES[automatic if options.dtype == "auto" else options.dtype]
    return chosen


def environment(model: Any) -> dict[str, Any]:
    """Return where and with what a measurement is made, as plain JSON."""
    from llava.eval import identity

    device = model.device
    found = identity.surroundings()
    versions = found["versions"]
    return {
        **identity.hardware(model),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "torch": torch.__version__,
        "transformers": versions.get("transformers"),
        "python": versions["python"],
        **found,
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
