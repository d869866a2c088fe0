"""Registry of benchmarks: a new one is a file here and a line below."""

from __future__ import annotations

from llava.commandline import did_you_mean
from llava.errors import ConfigurationError
from llava.eval.benchmarks.base import Benchmark
from llava.eval.benchmarks.mme import Mme
from llava.eval.benchmarks.pope import Pope
from llava.eval.benchmarks.textvqa import TextVqa

_BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (Mme(), Pope(), TextVqa())}


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
