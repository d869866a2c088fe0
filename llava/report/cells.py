"""What tables and figures are made of: one run of one benchmark with one method, and where its result is looked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from llava.commandline import did_you_mean, folder_problems, too_small
from llava.errors import LlavaError
from llava.loadoptions import LoadOptions
from llava.methodoptions import MethodOptions

if TYPE_CHECKING:
    from llava.report.targets import Record

FLAGS = (
    *("limit", "model_path", "data", "dtype", "attn_implementation", "min_pixels", "max_pixels", "load_8bit"),
    *("load_4bit", "weights", "val", "seed"),
)
"""Fields of `Source` and of its `model` that a command to type repeats."""


@dataclass(frozen=True)
class Cell:
    """One run: a benchmark and the method its questions are answered with."""

    benchmark: str
    options: MethodOptions

    @property
    def label(self) -> str:
        """Short name of the run: method, options that are set, budget, e.g. `dart-criterion-random-128`."""
        given = self.options
        words = [text.replace("=-", "-").replace("=", "-").replace(".", "-") for text in given.set]
        words += [] if given.layer is None else [f"layer-{given.layer}"]
        name, _, budget = given.label.partition("-")
        return "-".join([name, *words, *([budget] if budget else [])])

    @property
    def words(self) -> str:
        """What one types to make this run alone with `python -m llava.eval`, from the benchmark on."""
        given = self.options
        flags = (("preset", given.preset), ("keep", given.keep), ("layer", given.layer))
        more = [f"--{name} {value}" for name, value in flags if value is not None]
        if given.reduction_ratio is not None:
            more.append(f"--reduction-ratio {given.reduction_ratio}")
        if given.max_num_tokens is not None:
            more.append(f"--max-num-tokens {given.max_num_tokens}")
        return " ".join([self.benchmark, "--method", given.method, *more, *(f"--set {text}" for text in given.set)])


@dataclass(frozen=True)
class Target:
    """The model that tables and figures speak about, as far as it is known before it is loaded.

    Args:
        name: last part of its path.
        path: as it was given; None: the embedded model.
        family: name of its family (`llava.model.families`).
        rule: the family whose released budget rule applies (`llava.reduction.released`).
        n_layers: layers of its language model; None: not known.
        takes_videos: whether its prompts may hold videos.
        val: VQAv2 and VizWiz are asked on their val splits, which can be scored here.
    """

    name: str
    path: str | None
    family: str
    rule: str
    n_layers: int | None = None
    takes_videos: bool = False
    val: bool = False

    @property
    def embedded(self) -> bool:
        return self.path is None

    def benchmark(self, name: str) -> str:
        """The benchmark that fills a column of the paper."""
        return f"{name}_val" if self.val and name in ("vqav2", "vizwiz") else name


@dataclass(frozen=True)
class Source:
    """Where results come from, and how missing ones are made."""

    results: str = "results"
    """Folders with results (or files that `pack` wrote), separated by commas; new results go to the first."""
    run: bool = False
    """Compute what is missing (continues where it was stopped)."""
    dry_run: bool = False
    """Only list what is missing and how many questions it takes."""
    model: LoadOptions = field(default_factory=LoadOptions)
    weights: Annotated[str | None, tyro.conf.arg(metavar="DIGEST")] = None
    """Weights digest (its beginning), where results of several models of one name are there."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    limit: int | None = None
    """Questions per benchmark, spread evenly over splits and sub-tasks; default: all."""
    benchmarks: str | None = None
    """Compute only these columns, separated by commas (pope,mme); default: all that the table has."""
    val: bool = False
    """VQAv2 and VizWiz on their val splits, which can be scored here, instead of test."""
    batch_size: int | str = 8
    """Questions answered at once; auto: as many as answer most in a second and fit in the memory."""
    reuse: int = 0
    """Megabytes for what questions about one image share; 0: all are computed in full, so that times compare."""
    fast: bool = False
    """Compile the layers after the cut and the decoding steps; pays on a GPU, seldom on a CPU."""
    seed: int = 0
    """Seed of everything random."""
    fresh: bool = False
    """Do not use results that another version of the code made."""

    @property
    def folders(self) -> list[Path]:
        """The folders with results; the first is the one that is written to."""
        return [Path(part.strip()) for part in self.results.split(",") if part.strip()]

    @property
    def only(self) -> list[str] | None:
        """The benchmarks that `benchmarks` names; None: all."""
        return (
            None if self.benchmarks is None else [part.strip() for part in self.benchmarks.split(",") if part.strip()]
        )

    def problems(self) -> list[str]:
        """Return everything that is wrong with the flags."""
        from llava.eval import benchmarks
        from llava.eval.scoring import data_problems

        found = data_problems(self.data)
        if not self.folders:
            found.append("--results names no folder: give for example --results results.")
        elif self.run:  # new results are written
            found += folder_problems("--results", self.folders[0])
        known = benchmarks.names()
        found += [
            f"--benchmarks: {name!r} is no benchmark.{did_you_mean(name, known)} Known: {', '.join(known)}."
            for name in self.only or ()
            if name not in known
        ]
        found += too_small(self, limit=1, batch_size=1, seed=0, reuse=0) + self.model.problems()
        return found

    @property
    def flags(self) -> str:
        """The flags that differ from the defaults, as one types them."""
        mine, usual = ({**vars(source.model), **vars(source)} for source in (self, Source()))
        words = []
        for name in ("results", *FLAGS):
            value = mine[name]
            if value != usual[name]:
                words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
        return " ".join(words)


def method_of(cell: Cell, target: Target, seed: int = 0) -> Any:
    """Return the method of a cell for a model's budget rule, or None where the method has no such setting."""
    try:
        return cell.options.build(target.rule, seed=seed)
    except LlavaError:
        return None


def decoder_layers(record: Record) -> int | None:
    """Return the layers of the language model behind a result, from its own accounting; None if it does not tell.

    A method that cuts once at layer K leaves a mean over T layers of (K * visual + (T - K) * final) / T.
    """
    counts, layer = record["accounting"], record["method"].get("options", {}).get("layer")
    visual, final, mean = (counts.get(name) for name in ("visual", "final", "mean_over_layers"))
    if not isinstance(layer, int) or layer < 1 or None in (visual, final, mean) or mean in (final, visual):
        return None
    return round(layer * (visual - final) / (mean - final))
