"""Registry of benchmarks: a new one is a file here and a line below."""

from __future__ import annotations

from llava.commandline import did_you_mean
from llava.errors import ConfigurationError
from llava.eval.benchmarks.base import Benchmark
from llava.eval.benchmarks.gqa import Gqa
from llava.eval.benchmarks.mm_vet import MmVet
from llava.eval.benchmarks.mmbench import MmBench, MmBenchCn
from llava.eval.benchmarks.mme import Mme
from llava.eval.benchmarks.ocrbench import OcrBench
from llava.eval.benchmarks.pope import Pope
from llava.eval.benchmarks.scienceqa import ScienceQa
from llava.eval.benchmarks.seed_bench import SeedBench
from llava.eval.benchmarks.textvqa import TextVqa
from llava.eval.benchmarks.video_qa import MsrvttQa, MsvdQa, TgifQa
from llava.eval.benchmarks.vizwiz import VizWiz, VizWizVal
from llava.eval.benchmarks.vqav2 import VqaV2, VqaV2Val

_ALL: tuple[type[Benchmark], ...] = (
    *(Gqa, MmBench, MmBenchCn, Mme, Pope, ScienceQa, VqaV2, VqaV2Val, TextVqa, VizWiz, VizWizVal, OcrBench),
    *(SeedBench, MmVet, TgifQa, MsvdQa, MsrvttQa),
)
_BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark() for benchmark in _ALL}


def names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(_BENCHMARKS)


def get(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ConfigurationError: there is no such benchmark; the message names the nearest and all.
    """
    if name not in _BENCHMARKS:
        known = ", ".join(names())
        raise ConfigurationError(f"Unknown benchmark {name!r}.{did_you_mean(name, names())} Known: {known}.")
    return _BENCHMARKS[name]
