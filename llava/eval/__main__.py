"""The command `python -m llava.eval BENCHMARK... [options]`, and the commands of `scoring.py`, which need no model.

python -m llava.eval pope mme --method dart --keep 128 --compare
accelerate launch --num_processes 8 -m llava.eval pope --keep 128
python -m llava.eval score pope --answers-file answers.jsonl
python -m llava.eval validate vqav2 upload.json
python -m llava.eval judge msvd_qa --answers-file answers.jsonl --endpoint URL
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from llava.commandline import BAD_INPUT, DONE, folder_problems, run, say, too_small, warn
from llava.errors import ConfigurationError, UnsupportedModel
from llava.eval import benchmarks, scoring
from llava.eval.processes import Processes
from llava.loadoptions import LoadOptions
from llava.methodoptions import EVERY, MethodOptions

SCORING: dict[str, tuple[Any, type]] = {
    "score": (scoring.score_command, scoring.ScoreConfig),
    "validate": (scoring.validate_command, scoring.ValidateConfig),
    "judge": (scoring.judge_command, scoring.JudgeConfig),
}


@dataclass(frozen=True)
class RunConfig:
    """Answer the questions of benchmarks with a model whose visual tokens are pruned, and score the answers."""

    benchmarks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of benchmarks, e.g. pope mme; `python -m llava.data` lists all."""
    reduction: MethodOptions = field(default_factory=MethodOptions)
    model: LoadOptions = field(default_factory=LoadOptions)
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    limit: int | None = None
    """Ask only so many questions, spread evenly over splits and sub-tasks."""
    blank: bool = False
    """Show images without content: the score without seeing, which a score has to be read against."""
    allow_missing: bool = False
    """Run although images or videos are missing; their questions count as empty answers and are listed."""
    compare: bool = False
    """Run (or reuse) the unpruned model too, and show score and time next to it."""
    batch_size: int | str = 8
    """Questions answered at once; auto: as many as answer most in a second and fit in the memory."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; default: what the benchmark prescribes."""
    fast: bool = False
    """Compile the layers after the cut and the decoding steps; pays on a GPU, seldom on a CPU."""
    reuse: int = 0
    """Megabytes kept of what questions about one image share (features, keys and values), e.g. 512: the same answers in
    less time. 0: every question is computed in full, so that the times of methods compare."""
    output: str = "results"
    """Folder for results and answers, or (with one benchmark) the .json file to write."""
    answers_file: str | None = None
    """Answers file of the method's run (with one benchmark); default: beside the results."""
    seed: int = 0
    """Seed of everything random."""
    num_chunks: int = 1
    """Split the questions as LLaVA's scripts do, for one process a chunk; `score FOLDER` puts the chunks together."""
    chunk_idx: int = 0
    """The chunk to answer, from 0."""
    restart: bool = False
    """Set earlier answers of this run aside (renamed, not deleted) and begin anew."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before any model is loaded."""
        found = scoring.benchmark_problems(self.benchmarks)
        found += too_small(self, batch_size=1, limit=1, max_new_tokens=1, seed=0, reuse=0, num_chunks=1)
        if not 0 <= self.chunk_idx < max(1, self.num_chunks):
            found.append(f"--chunk-idx {self.chunk_idx} is none of the chunks 0 to {self.num_chunks - 1}.")
        single = [
            name for name, used in (("--answers-file", self.answers_file), ("--output *.json", self._file)) if used
        ]
        try:
            variants = self.reduction.variants()
        except ConfigurationError as error:
            found += error.problems
            variants = replace(self.reduction, keep=None).variants()
        n_runs = len(self.benchmarks) * len(variants)
        if n_runs > 1 and single:
            found.append(f"{' and '.join(single)} can hold one run only, and {n_runs} are asked for.")
        found += scoring.data_problems(self.data) + self.model.problems()
        found += folder_problems("--output", self._file.parent if self._file else Path(self.output))
        for variant in variants:
            try:
                variant.build()
            except ConfigurationError as error:
                found += [problem for problem in error.problems if problem not in found]
        return found

    @property
    def _file(self) -> Path | None:
        return Path(self.output) if self.output.endswith(".json") else None


def run_command(config: RunConfig) -> int:
    """Check data and options, load the model once, run every benchmark, print the tables; return the exit code."""
    from llava.eval import data
    from llava.eval.processes import processes

    team = processes(config.model.device)
    if team.count > 1 and config.num_chunks > 1:
        raise ConfigurationError("--num-chunks is for processes that know nothing of each other: leave it out here.")
    sets = [data.locate(benchmarks.get(name), config.data) for name in dict.fromkeys(config.benchmarks)]
    # all missing paths are known before a model is loaded
    data.load_questions(sets, "llava", config.limit, config.allow_missing)
    return _load_and_run(config, sets, team)


def _load_and_run(config: RunConfig, sets: Sequence, team: Processes) -> int:
    from llava.eval import data, identity, screen
    from llava.eval.runner import LoadedModel, MethodRun, Settings, run_benchmark
    from llava.model.families import family_of

    model, processor = config.model.load(team.device)
    processor.blank = config.blank
    loaded = LoadedModel(model, processor, config.model.shown_path, identity.weights_digest(model))
    family, rule = processor.family, family_of(model).budget_rule
    asked = [
        MethodRun(options.build(rule, seed=config.seed), options.label, options.method_file, tuple(options.notes(rule)))
        for options in config.reduction.variants()
    ]
    for note in dict.fromkeys(note for method in asked for note in method.notes if team.is_first):
        say(note)
    settings = Settings(
        folder=(config._file.parent if config._file else Path(config.output)),
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        fast=config.fast,
        reuse=config.reuse,
        seed=config.seed,
        limit=config.limit,
        restart=config.restart,
        answers_file=Path(config.answers_file) if config.answers_file else None,
        results_file=config._file,
        say=warn if team.is_first else lambda sentence: None,
        chunks=(config.num_chunks, config.chunk_idx) if config.num_chunks > 1 else None,
        team=team,
    )
    # Named files and --restart belong to the method that was asked for; the unpruned run has its own, and is reused.
    beside = replace(settings, answers_file=None, results_file=None, restart=False)
    unpruned = MethodOptions(method="none")
    left_out: dict[str, str] = {}
    for dataset, questions in zip(
        sets, data.load_questions(sets, family, config.limit, config.allow_missing), strict=True
    ):
        records = []
        if config.compare and all(run.method.name != "none" for run in asked):
            none = MethodRun(unpruned.build(rule), unpruned.label)
            records.append(run_benchmark(dataset, questions, loaded, none, beside))
        for method in asked:
            try:
                records.append(run_benchmark(dataset, questions, loaded, method, settings))
            except (UnsupportedModel, ConfigurationError) as error:  # the others still have their turn
                if len(asked) == 1:
                    raise
                left_out[method.label] = str(error)
        done = [record for record in records if record is not None]
        for line in screen.report(done) if done else ():
            say(line)
    for label, reason in left_out.items() if team.is_first else ():
        warn(f"{label} was left out: {reason}")
    return BAD_INPUT if left_out and config.reduction.method != EVERY else DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] and words[0] in SCORING:
        name = words[0]
        command, config = SCORING[name]
        return run(command, config, words[1:], prog=f"python -m llava.eval {name}")
    return run(run_command, RunConfig, words, prog="python -m llava.eval")


if __name__ == "__main__":
    sys.exit(main())
