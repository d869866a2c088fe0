"""`python -m llava.bench sweep`: prefill (and decoding) over lengths, batch sizes, kernels and budgets.

The result is written after every cell; the same command continues an interrupted sweep, and a longer list of lengths,
batch sizes or kernels adds to it. What does not fit into the memory is recorded, and the sweep goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from llava.bench import decode, prefill, results, sizes
from llava.bench.breakeven import over_cells
from llava.bench.options import (
    NONE,
    ModelOptions,
    PromptOptions,
    Repeats,
    build_methods,
    keep_problems,
    kind_problems,
    known,
    listed,
    method_problems,
    placement_problems,
)
from llava.bench.subject import Subject, build, environment, with_batch
from llava.bench.sweeptable import lines
from llava.bench.trials import OK, OUT_OF_MEMORY, free_memory, is_out_of_memory
from llava.commandline import say, too_small, warn
from llava.errors import BadInput, first_line
from llava.eval import results as files
from llava.reduction.base import Reduction

KERNELS = ("sdpa", "eager", "flash_attention_2")
LENGTHS, FIRST_LENGTH = "576,1024,1600,2304,2880", 4
AXES = ("tokens", "batch", "kernel")
FIXED = ("device", "dtype", "torch", "transformers", "llava")
"""Facts of the environment in which all cells of one file agree."""


@dataclass(frozen=True)
class Sweep:
    """Time the prefill of methods against the unpruned model over lengths, batch sizes, kernels and budgets."""

    tokens: str | None = None
    """Visual tokens of a shape's image, with commas; default 576,1024,1600,2304,2880."""
    keep: str = "320"
    """Visual tokens to keep, counts or fractions, with commas."""
    batch: str = "1"
    """Prompts at a time, with commas, e.g. 1,4,8,16."""
    kernel: str = "sdpa"
    """Attention kernels, with commas: sdpa, eager, flash_attention_2."""
    new_tokens: int | None = None
    """Time decoding too, over so many tokens."""
    text: int | None = None
    """Text tokens around a shape's image; default 60."""
    methods: str = "dart,random"
    """Methods, separated by commas, or `all`; the unpruned model is always measured."""
    layer: int = 2
    """Decoder layer whose input is cut, for methods that cut once inside the language model."""
    benchmark: str | None = None
    """Benchmark whose questions a checkpoint is asked; default pope."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    model: ModelOptions = field(default_factory=ModelOptions)
    times: Repeats = field(default_factory=lambda: Repeats(repeats=5, warmup=1))
    restart: bool = False
    """Measure anew what the output file has already."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        model = self.model
        found = [*model.problems(), *self.prompt(None, 1, KERNELS[0]).problems(model), *self.times.problems()]
        found += too_small(self, new_tokens=2)
        found += kind_problems(self, model, of_shapes=("tokens",), of_checkpoints=())
        parsed = [self._list("tokens"), self._list("batch"), self._list("keep", (int, float))]
        found += [problem for _, problems in parsed for problem in problems]
        (tokens, _), (batches, _), (keeps, _) = parsed
        found += [f"--tokens {n}: give at least {FIRST_LENGTH}." for n in tokens if n < FIRST_LENGTH]
        found += [f"--batch {n}: give at least 1." for n in batches if n < 1]
        visual = []
        if model.is_random and model.shape_name in sizes.SHAPES:
            shape = sizes.SHAPES[model.shape_name]
            visual = [sizes.visual_tokens(shape, n) for n in tokens if n >= FIRST_LENGTH]
        found += keep_problems(keeps, visual)
        wrong = known(self.kernels, "kernel", KERNELS)
        found += wrong or [
            problem for kernel in self.kernels for problem in placement_problems(model.device, "auto", kernel)
        ]
        usable = next((keep for keep in keeps if not keep_problems([keep])), 1.0)
        return list(dict.fromkeys(found + method_problems(self.methods, usable, self.layer)))

    def _list(self, name: str, kinds: tuple[type, ...] = (int,)) -> tuple[list[Any], list[str]]:
        words = getattr(self, name)
        return listed(LENGTHS if words is None else words, name, kinds)

    @property
    def kernels(self) -> list[str]:
        """Attention kernels, each once."""
        return list(dict.fromkeys(part.strip() for part in self.kernel.split(",") if part.strip()))

    def prompt(self, tokens: int | None, batch: int, kernel: str) -> PromptOptions:
        """The prompt of a cell."""
        return PromptOptions(
            tokens=tokens,
            text=self.text,
            benchmark=self.benchmark,
            data=self.data,
            batch=batch,
            attn_implementation=kernel,
        )

    def cells(self) -> list[tuple[int | None, str, list[int]]]:
        """Visual tokens and kernel of every model to be built, and the batch sizes to be run on it."""
        tokens = self._list("tokens")[0] if self.model.is_random else [None]
        batches = self._list("batch")[0]
        return [(n, kernel, batches) for n, kernel in product(tokens, self.kernels)]

    def build(self) -> dict[str, Reduction]:
        """Label -> method, the unpruned one first; labels have the budget in them.

        Raises:
            ConfigurationError: all mistakes of all methods together.
        """
        found: dict[str, Reduction] = {}
        for keep in self._list("keep", (int, float))[0]:
            for name, method in build_methods(self.methods, keep, self.layer).items():
                found[name if name == NONE else f"{name}-{keep}"] = method
        return found


def run(options: Sweep) -> None:
    """Measure every cell that is not measured yet; write after each; show all."""
    output, methods = options.times.output, options.build()
    result = earlier(options, output) or results.content("sweep", options, {}, {}, [])
    result["options"] = results.flat(options)
    result["complete"] = False
    asked = sum(len(batches) for *_, batches in options.cells())
    try:
        for row in new_cells(options, methods, result["rows"], lambda where: _place(result, where, output)):
            result["rows"] = [*(old for old in result["rows"] if _key(old) != _key(row)), row]
            result["break_even"] = over_cells(result["rows"])
            if output is not None:
                files.write(output, result)
            warn(f"{_words(row)}: {row['status']}")
            if not row["complete"]:
                break
        else:
            result["complete"] = True
    except KeyboardInterrupt:
        if not result["rows"]:
            raise
    result["break_even"] = over_cells(result["rows"])
    measured = len(result["rows"])
    say(f"{options.model.name}, {result['environment'].get('device', '')}; {measured} cells, {asked} asked for")
    for line in lines(result["rows"], result["break_even"]):
        say(line)
    results.finish(result, output)


def earlier(options: Sweep, output: Path | None) -> dict[str, Any] | None:
    """Return what an earlier start of this sweep has measured; None if there is nothing, or it is not wanted.

    Raises:
        BadInput: the file is of a sweep with other options.
    """
    if output is None or options.restart or not output.exists():
        return None
    found = results.read(output, "sweep")
    now = results.flat(options)
    other = [name for name in now if name not in AXES and now[name] != found["options"].get(name)]
    if other:
        differing = ", ".join(f"{name} {found['options'].get(name)!r} there, {now[name]!r} here" for name in other)
        raise BadInput(f"{output} is of a sweep with other options ({differing}): give another --output, or --restart.")
    return found


def new_cells(
    options: Sweep,
    methods: Mapping[str, Reduction],
    done: Sequence[Mapping[str, Any]],
    told: Callable[[dict[str, Any]], None],
) -> Iterator[dict[str, Any]]:
    """Yield the row of every cell that is not in `done`, or was left incomplete there.

    Args:
        told: called with the environment of every model before it is measured.
    """
    finished = {_key(row) for row in done if row["complete"]}
    for tokens, kernel, batches in options.cells():
        missing = [batch for batch in batches if (tokens, batch, kernel) not in finished]
        if not missing:
            continue
        subject: Subject | None = None
        reason = ""
        try:
            subject = build(options.model, options.prompt(tokens, min(missing), kernel), max(missing))
            told(environment(subject.model))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        for batch in missing:
            row = {"tokens": tokens, "batch": batch, "kernel": kernel, "complete": True}
            if subject is None:
                yield {**row, "status": OUT_OF_MEMORY, "reason": reason, "methods": []}
            else:
                yield {**row, **cell(options, methods, subject, batch)}
        del subject
        free_memory()


def cell(options: Sweep, methods: Mapping[str, Reduction], subject: Subject, batch: int) -> dict[str, Any]:
    """Measure one cell; it is out of memory when nothing fits."""
    try:
        return _measured(options, methods, with_batch(subject, batch))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    free_memory()
    return {"status": OUT_OF_MEMORY, "reason": reason, "methods": []}


def _measured(options: Sweep, methods: Mapping[str, Reduction], subject: Subject) -> dict[str, Any]:
    times = options.times
    measured = prefill.measure(subject, dict(methods), times.repeats, times.warmup, warn)
    rows, complete = measured.rows, measured.complete
    if options.new_tokens and complete:
        fitting = {row["method"]: methods[row["method"]] for row in rows if row["status"] == OK}
        decoded = decode.measure(subject, fitting, options.new_tokens, times.repeats, times.warmup, warn)
        complete = decoded.complete
        by_label = {row["method"]: row for row in decoded.rows}
        rows = [{**row, "decode": by_label.get(row["method"])} for row in rows]
    fits = any(row["status"] == OK for row in rows)
    facts = {name: subject.facts.get(name) for name in ("visual_tokens", "prompt_tokens", "tower_flops")}
    return {
        "status": OK if fits else OUT_OF_MEMORY,
        "reason": "" if fits else rows[0]["reason"],
        "complete": complete,
        **facts,
        "left_out": measured.left_out,
        "methods": rows,
    }


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in AXES)


def _words(row: Mapping[str, Any]) -> str:
    length = "" if row["tokens"] is None else f"{row['tokens']} tokens, "
    return f"{length}batch {row['batch']}, {row['kernel']}"


def _place(result: dict[str, Any], where: dict[str, Any], output: Path | None) -> None:
    """Note where the sweep is measured; refuse to go on with one from elsewhere."""
    there = result["environment"] = result["environment"] or where
    other = [name for name in FIXED if _fact(there, name) != _fact(where, name)]
    if other:
        differing = ", ".join(f"{name} {_fact(there, name)} there, {_fact(where, name)} here" for name in other)
        raise BadInput(f"{output} was measured elsewhere ({differing}): give another --output, or --restart.")


def _fact(environment: Mapping[str, Any], name: str) -> Any:
    return environment.get(name, environment.get("versions", {}).get(name))
