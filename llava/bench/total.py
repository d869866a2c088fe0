"""`python -m llava.bench total`: wall time of a whole benchmark run with methods and without (the paper's Table 2).

The methods take turns at every batch, so that drift of the machine meets all of them alike; a run's time is the sum
over its batches. Images are opened in line, as the released scripts do it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.bench import results
from llava.bench.options import (
    EMBEDDED,
    NONE,
    POPE,
    MethodChoice,
    ModelOptions,
    benchmark_problems,
    output_problems,
    placement_problems,
)
from llava.bench.prefill import times
from llava.bench.subject import environment, load, model_name
from llava.bench.timing import ratios, spread
from llava.bench.trials import told_when_too_large, try_each
from llava.commandline import say, too_small, warn
from llava.errors import LlavaError
from llava.eval import accounting
from llava.eval.benchmarks.base import Question, Row
from llava.eval.data import DataSet
from llava.eval.generation import now
from llava.eval.screen import DASH, number, table
from llava.model.pruning import Pruning
from llava.reduction.base import Reduction

SECONDS = ("preprocess", "prefill", "decode")


@dataclass(frozen=True)
class Total:
    """Time a whole benchmark run of methods against the unpruned model."""

    benchmark: str = POPE
    """Benchmark whose questions are asked."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    limit: int | None = None
    """Ask only so many questions, spread evenly over splits and sub-tasks."""
    batch: int = 1
    """Questions answered at once."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; default: what the benchmark prescribes."""
    model_path: str = EMBEDDED
    """Folder or hub name of a checkpoint, or `embedded` for the llava-nano of this package."""
    dtype: str = "auto"
    """float32, bfloat16, float16; auto: float32 on CPU, on CUDA as the checkpoint is."""
    device: str = "auto"
    """cpu, cuda or cuda:1; auto: a GPU if there is one."""
    attn_implementation: str | None = None
    """sdpa (default), eager or flash_attention_2."""
    choice: MethodChoice = field(default_factory=MethodChoice)
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is loaded."""
        found = benchmark_problems(self.benchmark, self.data)
        found += too_small(self, limit=1, batch=1, max_new_tokens=1)
        found += placement_problems(self.device, self.dtype, self.attn_implementation)
        return found + self.choice.problems() + output_problems(self.output)

    @property
    def model(self) -> ModelOptions:
        """The model's options, as other commands have them."""
        return ModelOptions(model_path=self.model_path, dtype=self.dtype, device=self.device)


def run(options: Total) -> None:
    """Measure, show, write."""
    from llava.eval import benchmarks, data

    methods = options.choice.build()
    dataset = data.locate(benchmarks.get(options.benchmark), options.data)
    data.load_questions([dataset], "llava", options.limit)  # missing files are known before the model is loaded
    model, processor = load(options.model, options.attn_implementation)
    (questions,) = data.load_questions([dataset], processor.family, options.limit)
    where = environment(model)
    longest = options.max_new_tokens or dataset.benchmark.max_new_tokens
    whole = measure(model, processor, questions, methods, options.batch, longest, warn)
    if not whole.answered:
        raise LlavaError("No question could be answered: see the reasons above.")
    rows = [row(label, whole, dataset) for label in whole.batches]
    name = model_name(options.model)
    say(
        f"{dataset.benchmark.title} ({dataset.kind} data), {whole.answered} questions, batch {options.batch}, {name}, "
        f"{where['device']}, {where['dtype']}, {where['attention']}"
    )
    for line in lines(rows):
        say(line)
    facts = {
        "model": name,
        "weights": "checkpoint",
        "family": processor.family,
        "benchmark": dataset.benchmark.name,
        "split": dataset.kind,
        "questions": len(questions),
        "questions_answered": whole.answered,
        "questions_left_out": whole.skipped,
    }
    result = results.content("total", options, where, facts, rows, complete=whole.complete, left_out=whole.left_out)
    results.finish(result, options.output)


class Unaskable(LlavaError):
    """A batch has a question whose image cannot be used."""


@dataclass
class Batch:
    """One batch under one method: seconds of its parts and of all, its token counts, its answers."""

    seconds: dict[str, float]
    total: float
    counts: dict[str, Any]
    rows: list[Row]


@dataclass
class Whole:
    """All batches by label.

    Args:
        complete: False when Ctrl-C came before the end.
        left_out: methods that cannot work, and why.
        skipped: questions that could not be asked, and those of their batches.
    """

    batches: dict[str, list[Batch]]
    complete: bool
    left_out: dict[str, str]
    skipped: int = 0

    @property
    def answered(self) -> int:
        """Questions that every method has answered."""
        return sum(len(batch.rows) for batch in next(iter(self.batches.values()), []))


def measure(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    methods: Mapping[str, Reduction],
    size: int,
    max_new_tokens: int,
    say: Callable[[str], Any] = lambda sentence: None,
) -> Whole:
    """Answer all questions under every method, batch by batch in turns; the first batch is also answered for warm-up.

    Args:
        methods: label -> method.
        size: questions in a batch.
        max_new_tokens: longest answer.
        say: told which methods cannot work.
    """
    groups = [questions[first : first + size] for first in range(0, len(questions), size)]

    def answer(pruning: Pruning, group: Sequence[Question]) -> Batch:
        with pruning:
            return _answer(model, processor, group, pruning, max_new_tokens)

    def first(pruning: Pruning) -> None:
        with suppress(Unaskable):
            _answer(model, processor, groups[0], pruning, max_new_tokens)

    trial = try_each(model, methods, first, say)
    whole = Whole({label: [] for label in trial.working}, True, {**trial.left_out, **trial.out_of_memory})
    with tqdm(total=len(groups), desc="batches", leave=False, disable=None) as bar:
        try:
            for group in groups if trial.working else ():
                try:
                    with told_when_too_large(f"A batch of {len(group)} questions"):
                        done = {label: answer(pruning, group) for label, pruning in trial.working.items()}
                except Unaskable as error:
                    say(f"{len(group)} questions are left out for all methods: {error}")
                    whole.skipped += len(group)
                else:
                    for label, batch in done.items():
                        whole.batches[label].append(batch)
                bar.update()
        except KeyboardInterrupt:
            if not whole.answered:
                raise
            whole.complete = False
    return whole


def _answer(model: Any, processor: Any, group: Sequence[Question], pruning: Pruning, max_new_tokens: int) -> Batch:
    from llava.eval.answers import answer_row
    from llava.eval.generation import answer_batch

    started = now(model.device)
    given = answer_batch(model, processor, group, max_new_tokens)
    total = now(model.device) - started
    wrong = next((error for error in given.errors if error is not None), None)
    if wrong is not None:
        raise Unaskable(f"a question could not be asked ({wrong})")
    seconds = given.seconds
    parts = {
        "preprocess": seconds["preprocess"],
        "prefill": seconds["first_token"],
        "decode": seconds["generate"] - seconds["first_token"],
    }
    rows = [answer_row(question, text, "", "") for question, text in zip(group, given.texts, strict=True)]
    return Batch(parts, total, accounting.batch_means(pruning.reports[-1]), rows)


def row(label: str, whole: Whole, dataset: DataSet) -> dict[str, Any]:
    """Return the sums over a run, its score, and its ratios to the unpruned one."""
    mine, unpruned = whole.batches[label], whole.batches.get(NONE)
    found: dict[str, Any] = {
        "method": label,
        "questions": sum(len(batch.rows) for batch in mine),
        "batch_size": max(len(batch.rows) for batch in mine),
        "total_seconds": sum(batch.total for batch in mine),
        **{f"{part}_seconds": sum(batch.seconds[part] for batch in mine) for part in SECONDS},
        "seconds_per_question": spread([batch.total / len(batch.rows) for batch in mine]),
        "accounting": accounting.run_means([{"asked": len(b.rows), "accounting": b.counts} for b in mine]),
        "score": _score(dataset, [row for batch in mine for row in batch.rows]),
        "speedup_total": None,
        "speedup_prefill": None,
        "speedup_per_batch": None,
        "same_answers": None,
    }
    if unpruned is None:
        return found
    pairs = [
        (a["text"], b["text"]) for x, y in zip(mine, unpruned, strict=True) for a, b in zip(x.rows, y.rows, strict=True)
    ]
    return {
        **found,
        "speedup_total": sum(batch.total for batch in unpruned) / found["total_seconds"],
        "speedup_prefill": sum(batch.seconds["prefill"] for batch in unpruned) / found["prefill_seconds"],
        "speedup_per_batch": ratios([b.total for b in unpruned], [b.total for b in mine]).to_dict(),
        "same_answers": sum(a == b for a, b in pairs) / len(pairs),
    }


def _score(dataset: DataSet, rows: Sequence[Row]) -> dict[str, Any] | None:
    try:
        return asdict(dataset.benchmark.score(dataset.root, rows).headline)
    except LlavaError:  # a part of the questions, of a benchmark that scores whole files only
        return None


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table for the screen."""
    header = ["method", "kept", "total s", "prefill s", "decode s", "preprocess s", "total", "prefill"]
    header += ["per batch (quartiles)", "FLOPs", "cache MB", "score", "same answers"]
    return table(header, [_cells(row) for row in rows])


def _cells(row: Mapping[str, Any]) -> list[str]:
    counts, score = row["accounting"], row["score"]
    ratio = [row["speedup_total"], row["speedup_prefill"]]
    return [
        row["method"],
        number(counts["final"], 1),
        *(number(row[f"{part}_seconds"]) for part in ("total", "prefill", "decode", "preprocess")),
        *(DASH if one is None else f"{one:.2f}x" for one in ratio),
        times(row["speedup_per_batch"]),
        f"{counts['flops_exact'] / counts['flops_exact_unpruned']:.1%}",
        number(counts["cache_bytes"] and counts["cache_bytes"] / 1e6, 1),
        number(score and score["value"]),
        DASH if row["same_answers"] is None else f"{row['same_answers']:.1%}",
    ]
