"""`python -m llava.bench pipeline`: whole questions, from the image file to the answer, as released and as here.

The released pipeline asks one question at a time, decodes the image in line, runs every layer of the vision tower and
every position through the language head, and encodes an image anew for each of its questions. The parts that change
this are switched on one after the other, and each is switched off alone; all runs take turns in one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.bench.options import TOKENS, output_problems
from llava.commandline import too_small
from llava.methodoptions import MethodOptions

if TYPE_CHECKING:
    from llava.bench.pipeline_parts import Pipeline, Subject

UNPRUNED = "none"


@dataclass(frozen=True)
class PipelineOptions:
    """Time whole questions: the pipeline as released against this one, unpruned and pruned, part by part."""

    reduction: MethodOptions = field(default_factory=lambda: MethodOptions(method="dart", keep=64))
    benchmark: str = "pope"
    """Whose questions are asked."""
    images: int = 3
    """Images that are asked about, each with all its questions."""
    data: str | None = None
    """full, mini, or a folder in the official layout; default: full when it is there, else mini."""
    model_path: str | None = None
    """Folder or hub name of a checkpoint; default: the embedded llava-nano (`embedded`)."""
    shape: str | None = None
    """Random weights of this size instead, asked random questions: small, llava-1.5-7b, llava-next-7b, ..."""
    layers: int | None = None
    """Build only so many decoder layers of the shape."""
    tokens: int = TOKENS
    """Visual tokens of an image of a random model (the nearest number that the shape can make is used)."""
    questions: int = 18
    """Questions an image, for a random model."""
    new_tokens: int = 8
    """Tokens of every answer of a random model."""
    batch: int = 18
    """Questions at a time, where that part is on."""
    reuse_mb: int = 1024
    """Most that is kept of known images, in megabytes."""
    fast: bool = False
    """Compiling is among the parts on a CPU too, as it always is on a GPU."""
    ablation: bool = False
    """Also switch the parts on one after the other, and off one by one."""
    repeats: int = 5
    """Counted rounds."""
    warmup: int = 1
    """Rounds before counting (compiling needs two)."""
    dtype: str | None = None
    """float32, float16 or bfloat16; default: float32 on the CPU, bfloat16 on a GPU."""
    device: str | None = None
    """cpu or cuda."""
    attn_implementation: str = "sdpa"
    """sdpa or eager."""
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before any model is loaded."""
        from llava.bench.shapes import SHAPES
        from llava.errors import ConfigurationError
        from llava.eval import scoring

        found = too_small(self, images=1, questions=1, new_tokens=1, batch=1, reuse_mb=0, repeats=1, warmup=0, tokens=4)
        if self.shape is not None and self.shape not in SHAPES:
            found.append(f"Unknown shape {self.shape!r}. Known: {', '.join(SHAPES)}.")
        elif self.shape is not None and self.layers is not None and not 3 <= self.layers <= SHAPES[self.shape].layers:
            found.append(f"--layers {self.layers}: give 3 to {SHAPES[self.shape].layers} for {self.shape}.")
        if self.shape is not None and self.model_path is not None:
            found.append("--shape and --model-path exclude each other: give one of them.")
        if self.shape is None:
            found += scoring.benchmark_problems((self.benchmark,))
        try:
            self.reduction.build()
        except ConfigurationError as error:
            found += error.problems
        return found + output_problems(self.output)


def plans(parts: Sequence[str], label: str, ablation: bool) -> dict[str, tuple[bool, frozenset[str]]]:
    """Return what is measured: name -> (whether it is pruned, the parts that are on).

    Args:
        parts: all parts, in the order in which they are switched on.
        label: of the method.
        ablation: whether parts are switched on and off one by one.
    """
    everything = frozenset(parts)
    found = {
        "unpruned, as released": (False, frozenset()),
        "unpruned, batched only": (False, everything & {"batch"}),
        "unpruned, all parts": (False, everything),
        f"{label}, as released": (True, frozenset()),
    }
    for number, part in enumerate(parts[:-1] if ablation else (), start=1):
        found[f"{label}, + {part}"] = (True, frozenset(parts[:number]))
    found[f"{label}, all parts"] = (True, everything)
    for part in parts if ablation else ():
        gone = {part, "prefix"} if part == "features" else {part}  # the prefix holds the features too
        found[f"{label}, all but {part}"] = (True, everything - gone)
    return found


def pipelines(options: PipelineOptions, subject: Subject) -> dict[str, Pipeline]:
    """Return every pipeline that is measured, by name."""
    from llava.bench.pipeline_parts import COMPILED, PARTS, Pipeline
    from llava.commandline import warn
    from llava.model.families import family_of
    from llava.model.fast import Fast
    from llava.reduction import registry

    fast = options.fast or subject.model.device.type == "cuda"
    parts = [part for part in PARTS if fast or part != COMPILED]
    none = registry.create(UNPRUNED)
    method = options.reduction.build(family_of(subject.model).budget_rule, seed=0)
    label = options.reduction.label
    bytes_kept = options.reuse_mb * 2**20
    return {
        name: Pipeline(
            subject, method if pruned else none if on else None, on, options.batch, bytes_kept, Fast(say=warn)
        )
        for name, (pruned, on) in plans(parts, label, options.ablation).items()
    }


def measure(
    runs: dict[str, Pipeline], options: PipelineOptions, tick: Callable[[], Any]
) -> tuple[list[dict[str, Any]], bool]:
    """Time all pipelines in turn; return one row for each, and whether Ctrl-C did not come before the end."""
    from llava.bench.livebytes import peak_bytes
    from llava.bench.timing import ratios, spread, take_turns

    subject = next(iter(runs.values())).subject
    device, count = subject.model.device, len(subject.questions)
    answering = {name: pipeline.answers for name, pipeline in runs.items()}
    turns = take_turns(answering, device, options.repeats, options.warmup, tick)
    few = subject.first(2 * options.batch)
    released, best = turns.seconds["unpruned, as released"], turns.seconds["unpruned, all parts"]
    rows = []
    for name, pipeline in runs.items():
        seconds, answers = turns.seconds[name], turns.values[name][-1]
        plain = turns.values[f"{name.partition(',')[0]}, as released"][-1]
        rows.append(
            {
                "pipeline": name,
                "parts": sorted(pipeline.parts),
                "batch": pipeline.batch,
                "seconds_per_sample": spread([value / count for value in seconds]),
                "samples_per_second": spread([count / value for value in seconds]),
                "over_unpruned_released": ratios(released, seconds).to_dict(),
                "over_unpruned_all_parts": ratios(best, seconds).to_dict(),
                "different_answers": sum(one != other for one, other in zip(answers, plain, strict=True)),
                "peak_bytes": peak_bytes(functools.partial(pipeline.answers, few), device),
                "reuse": None if pipeline.reuse is None else pipeline.reuse.statistics(),
                "not_compiled_because": getattr(pipeline.pruning, "fast_reason", None),
            }
        )
        tick()
    return with_shares(rows, turns.seconds), turns.complete


def with_shares(rows: list[dict[str, Any]], seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Add what each part gains: over the row before where parts are added, of all parts where one is left out."""
    from llava.bench.timing import ratios

    for before, row in zip(rows, rows[1:], strict=False):
        name = row["pipeline"]
        label = name.partition(",")[0]
        whole = f"{label}, all parts"
        if ", all but " in name:
            row["share"] = asdict(ratios(seconds[name], seconds[whole]))
        elif ", + " in name or (name == whole and ", + " in before["pipeline"]):
            row["share"] = asdict(ratios(seconds[before["pipeline"]], seconds[name]))
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table for the screen."""
    from llava.eval.screen import table

    header = ("method", "samples/s", "x unpruned released", "x unpruned all parts", "this part", "peak MB", "answers")

    def spread(value: dict[str, Any] | None) -> str:
        return "-" if value is None else f"{value['median']:.2f} ({value['low']:.2f}-{value['high']:.2f})"

    cells = [
        (
            row["pipeline"],
            spread(row["samples_per_second"]),
            spread(row["over_unpruned_released"]),
            spread(row["over_unpruned_all_parts"]),
            spread(row.get("share")),
            f"{row['peak_bytes'] / 1e6:.1f}",
            "same" if not row["different_answers"] else f"{row['different_answers']} differ",
        )
        for row in rows
    ]
    return table(header, cells)


def pipeline(options: PipelineOptions) -> int:
    """Measure, print the table, write the raw result; the exit code is 1 if float32 answers differ."""
    import tempfile

    import torch
    from tqdm import tqdm

    from llava.bench import pipeline_subjects as subjects
    from llava.bench import results
    from llava.bench.subject import environment
    from llava.commandline import DONE, FAILED, say, warn

    place = (options.dtype, options.device, options.attn_implementation)
    with tempfile.TemporaryDirectory() as folder:
        if options.shape is None:
            source = (options.model_path, options.benchmark, options.data, options.images)
            subject = subjects.checkpoint(*source, *place)
        else:
            sizes = (options.layers, options.tokens, options.images, options.questions, options.new_tokens)
            subject = subjects.random_weights(options.shape, *sizes, *place, Path(folder))
        runs = pipelines(options, subject)
        bar = tqdm(total=len(runs) * (options.repeats + options.warmup + 1), desc="pipeline", leave=False)
        rows, complete = measure(runs, options, bar.update)
        bar.close()
    name = options.shape or options.model_path or "the embedded model"
    say(f"{name}, {len(subject.questions)} questions about {options.images} images")
    for line in lines(rows):
        say(line)
    about = {"model": name, "questions": len(subject.questions), "max_new_tokens": subject.max_new_tokens}
    told = results.content("pipeline", options, environment(subject.model), about, rows, complete=complete)
    results.finish(told, options.output)
    if subject.model.dtype == torch.float32 and any(row["different_answers"] for row in rows):
        warn("Some answers differ from those of the plain pipeline, which float32 should not let happen.")
        return FAILED
    return DONE
