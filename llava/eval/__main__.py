"""The commands `python -m llava.eval BENCHMARK... [options]` and `python -m llava.eval score BENCHMARK ...`.

python -m llava.eval pope mme --method dart --keep 128 --compare
python -m llava.eval score pope --answers-file answers.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from llava.commandline import MethodOptions, did_you_mean, run, say, warn
from llava.errors import BadData, ConfigurationError
from llava.eval import benchmarks

EMBEDDED = "llava-nano"


@dataclass(frozen=True)
class RunConfig:
    """Answer the questions of benchmarks with a model whose visual tokens are pruned, and score the answers."""

    benchmarks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of benchmarks: mme, pope, textvqa."""
    reduction: MethodOptions = field(default_factory=MethodOptions)
    model_path: str | None = None
    """Folder or hub name of a LLaVA checkpoint; default: the embedded llava-nano."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    limit: int | None = None
    """Ask only so many questions, spread evenly over splits and sub-tasks."""
    compare: bool = False
    """Run (or reuse) the unpruned model too, and show score and time next to it."""
    batch_size: int = 8
    """Questions answered at once."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; default: what the benchmark prescribes."""
    dtype: str | None = None
    """float32, float16 or bfloat16; default: the checkpoint's on a GPU, float32 on the CPU."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; default: a GPU if there is one."""
    attn_implementation: str | None = None
    """Attention kernel: sdpa, eager or flash_attention_2."""
    output: str = "results"
    """Folder for results and answers, or (with one benchmark) the .json file to write."""
    answers_file: str | None = None
    """Answers file of the method's run (with one benchmark); default: beside the results."""
    seed: int = 0
    """Seed of everything random."""
    restart: bool = False
    """Set earlier answers of this run aside (renamed, not deleted) and begin anew."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before any model is loaded."""
        found = _benchmark_problems(self.benchmarks)
        for name, low in (("batch_size", 1), ("limit", 1), ("max_new_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                found.append(f"--{name.replace('_', '-')} {value} is too small: give at least {low}.")
        single = [
            name for name, used in (("--answers-file", self.answers_file), ("--output *.json", self._file)) if used
        ]
        try:
            variants = self.reduction.variants()
        except ConfigurationError as error:
            found += error.problems
            variants = [replace(self.reduction, keep=None)]
        n_runs = len(self.benchmarks) * len(variants)
        if n_runs > 1 and single:
            found.append(f"{' and '.join(single)} can hold one run only, and {n_runs} are asked for.")
        if self.data not in (None, "full", "mini") and not Path(self.data).is_dir():
            found.append(f"--data {self.data!r} is neither full nor mini nor a folder.")
        found += _loading_problems(self.dtype, self.attn_implementation)
        for variant in variants:
            try:
                variant.build()
            except ConfigurationError as error:
                found += [problem for problem in error.problems if problem not in found]
        return found

    @property
    def _file(self) -> Path | None:
        return Path(self.output) if self.output.endswith(".json") else None


@dataclass(frozen=True)
class ScoreConfig:
    """Score an existing answers file with the official rules; no model is loaded."""

    benchmark: tyro.conf.Positional[str]
    """Name of the benchmark: mme, pope, textvqa."""
    answers_file: str
    """Answers in LLaVA's format, one JSON object a line."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    partial: bool = False
    """Accept a file that does not answer every question, and score what is there."""
    output: str | None = None
    """Also write the score to this JSON file."""
    export: bool = False
    """Also write the files that the benchmark's own tool reads (MME: eval_tool/answers/<name>/)."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        return _benchmark_problems((self.benchmark,))


def _benchmark_problems(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        try:
            benchmarks.get(name)
        except ConfigurationError as error:
            found += error.problems
    if not names:
        found.append(f"Name at least one benchmark: {', '.join(benchmarks.names())}.")
    return found


def _loading_problems(dtype: str | None, attention: str | None) -> list[str]:
    if dtype is None and attention is None:
        return []  # spares importing transformers
    from llava.model.placement import ATTENTION, DTYPES

    chosen = (("--dtype", dtype, tuple(DTYPES)), ("--attn-implementation", attention, ATTENTION))
    return [
        f"{flag} {value!r} is not known.{did_you_mean(value, known)} Known: {', '.join(known)}."
        for flag, value, known in chosen
        if value is not None and value not in known
    ]


def run_command(config: RunConfig) -> None:
    """Check data and options, load the model once, run every benchmark, print the tables."""
    from llava.eval import data

    sets = [data.locate(benchmarks.get(name), config.data) for name in dict.fromkeys(config.benchmarks)]
    data.load_questions(sets, "llava", config.limit)  # all missing paths are known before a model is loaded
    _load_and_run(config, sets)


def _load_and_run(config: RunConfig, sets: Sequence) -> None:
    import llava
    from llava.eval import data, identity, screen
    from llava.eval.runner import LoadedModel, MethodRun, Settings, run_benchmark

    model, processor = llava.load(
        config.model_path, device=config.device, dtype=config.dtype, attn_implementation=config.attn_implementation
    )
    loaded = LoadedModel(model, processor, config.model_path or EMBEDDED, identity.weights_digest(model))
    family = processor.family
    asked = [
        MethodRun(
            options.build(family, seed=config.seed), options.label, options.method_file, tuple(options.notes(family))
        )
        for options in config.reduction.variants()
    ]
    for note in dict.fromkeys(note for method in asked for note in method.notes):
        say(note)
    settings = Settings(
        folder=(config._file.parent if config._file else Path(config.output)),
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
        limit=config.limit,
        restart=config.restart,
        answers_file=Path(config.answers_file) if config.answers_file else None,
        results_file=config._file,
        say=warn,
    )
    # Named files and --restart belong to the method that was asked for; the unpruned run has its own, and is reused.
    beside = replace(settings, answers_file=None, results_file=None, restart=False)
    unpruned = MethodOptions(method="none")
    for dataset, questions in zip(sets, data.load_questions(sets, family, config.limit), strict=True):
        records = []
        if config.compare and all(run.method.name != "none" for run in asked):
            none = MethodRun(unpruned.build(family), unpruned.label)
            records.append(run_benchmark(dataset, questions, loaded, none, beside))
        for method in asked:
            records.append(run_benchmark(dataset, questions, loaded, method, settings))
        for line in screen.report(records):
            say(line)


def score_command(config: ScoreConfig) -> None:
    """Score an answers file and print what the official scorer prints."""
    from llava.eval import data, results
    from llava.eval.answers import read_answers
    from llava.eval.benchmarks import files

    benchmark = benchmarks.get(config.benchmark)
    dataset = data.locate(benchmark, config.data)
    rows = read_answers(Path(config.answers_file))
    files.require(benchmark.score_files(dataset.root), data.advice([dataset]))
    score = benchmark.score(dataset.root, rows)
    if score.samples < score.expected and not config.partial:
        raise BadData(
            f"{config.answers_file} answers {score.samples} of the {score.expected} questions of {benchmark.title} "
            f"({dataset.kind}). Add --partial to score what is there."
        )
    for line in (*score.printout, *score.notes):
        say(line)
    value = f"{score.headline.value:.2f} {score.headline.unit}".rstrip()
    say(f"{benchmark.title} ({dataset.kind}, {score.samples} answers): {score.headline.name} {value}")
    if config.export:
        for path in benchmark.export(dataset.root, rows, Path(config.answers_file).stem):
            say(f"Written: {path}")
    if config.output:
        results.write(Path(config.output), results.score_record(dataset, score, None))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["score"]:
        return run(score_command, ScoreConfig, words[1:], prog="python -m llava.eval score")
    return run(run_command, RunConfig, words, prog="python -m llava.eval")


if __name__ == "__main__":
    sys.exit(main())
