"""The commands `python -m llava.data [BENCHMARK...]` and `python -m llava.data convert BENCHMARK SOURCE...`.

python -m llava.data                        what is present, for every benchmark
python -m llava.data pope --verify          every file of one, with row counts, sums and images
python -m llava.data convert pope eval.zip val2014.zip coco_pope_random.json
python -m llava.data convert gqa downloads/*.parquet
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from llava.commandline import run, say
from llava.data import mirrors, placing, questions, status
from llava.data.catalogue import CATALOGUE
from llava.errors import BadData, BadInput
from llava.eval import benchmarks, data
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark
from llava.eval.scoring import benchmark_problems


@dataclass(frozen=True)
class StatusConfig:
    """Say which benchmark data is present, what is missing and where to get it."""

    benchmarks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of benchmarks to look at closely; default: one line for each of all."""
    data: str | None = None
    """Folder with one folder per benchmark; default: playground/data/eval."""
    verify: bool = False
    """Read the files too: row counts, known sums, images of all questions. Exit code 2 if something is amiss."""
    write_sums: bool = False
    """Write <benchmark>.SHA256SUMS beside the files; later --verify compares with it."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        found = benchmark_problems(self.benchmarks) if self.benchmarks else []
        if self.data is not None and not Path(self.data).is_dir():
            found.append(f"--data {self.data!r} is not a folder.")
        return found


@dataclass(frozen=True)
class ConvertConfig:
    """Bring downloads into the layout that `llava.eval` reads; files of the same name are replaced, none is deleted."""

    benchmark: tyro.conf.Positional[str]
    """Name of the benchmark."""
    sources: tyro.conf.Positional[tuple[str, ...]] = ()
    """Parquet files of the hub's mirror, official archives (.zip), single files, or folders with any of them."""
    output: str | None = None
    """Folder to write into; default: the benchmark's folder in playground/data/eval."""

    def problems(self) -> list[str]:
        """Return everything that is wrong with the options."""
        found = benchmark_problems((self.benchmark,))
        found += [f"No file or folder {source!r}." for source in self.sources if not Path(source).exists()]
        return found


def status_command(config: StatusConfig) -> None:
    """Print the overview, or the files of the named benchmarks."""
    home = Path(config.data) if config.data else data.data_home()
    names = config.benchmarks or benchmarks.names()
    complaints: list[str] = []
    if not config.benchmarks:
        say(f"Benchmark data in {home}")
        say(f"{'benchmark':<12} {'full set':<22} {'mini set':<9} what it is")
    for name in dict.fromkeys(names):
        benchmark = benchmarks.get(name)
        root = home / benchmark.folder
        found = status.look(benchmark, root, config.verify)
        if config.benchmarks:
            _details(benchmark, root, found)
        else:
            mini = "present" if benchmark.question_path(root / "mini").is_file() else "-"
            say(f"{name:<12} {_summary(found):<22} {mini:<9} {benchmark.title}, {CATALOGUE[name].licence}")
        if config.verify:
            complaints += _complaints(benchmark, root, found, bool(config.benchmarks))
        if config.write_sums:
            say(f"Written: {status.write_sums(benchmark, root)}")
    if not config.benchmarks:
        say("\nWhere to get the files of one: python -m llava.data NAME. Small sets need no download: --data mini.")
    if complaints:
        raise BadData("\n".join(["Not in order:", *files.shortened(complaints)]))


def _needed(found: Sequence[status.Found]) -> list[status.Found]:
    return [one for one in found if not one.item.optional]


def _summary(found: Sequence[status.Found]) -> str:
    needed = _needed(found)
    present = sum(one.state != status.MISSING for one in needed)
    wrong = sum(one.state not in (status.MISSING, status.PRESENT) for one in needed)
    if not present:
        return "-"
    parts = "present" if present == len(needed) else f"{present} of {len(needed)} parts"
    return f"{parts}, {wrong} amiss" if wrong else parts


def _details(benchmark: Benchmark, root: Path, found: Sequence[status.Found]) -> None:
    entry = CATALOGUE[benchmark.name]
    say(f"{benchmark.title} ({benchmark.name}) in {root}; licence: {entry.licence}")
    for one in found:
        needed = " (optional)" if one.item.optional else ""
        detail = f": {one.detail}" if one.detail else ""
        say(f"  {one.state:<9} {one.path}{'/' if one.item.is_folder else ''}{needed}{detail}")
        if one.state != status.PRESENT:
            say(f"            from {one.item.source}")
    if benchmark.name in questions.REBUILD:
        say(f"  The question file is rebuilt by: python -m llava.data convert {benchmark.name}")
    if entry.mirror:
        say(f"  Parquet files that convert reads: {entry.mirror}")
    if entry.remark:
        say(f"  {entry.remark}")


def _complaints(benchmark: Benchmark, root: Path, found: Sequence[status.Found], named: bool) -> list[str]:
    needed = _needed(found)
    if not named and all(one.state == status.MISSING for one in needed):
        return []  # nobody began to download it
    lines = [f"{one.path}: {one.detail or one.state}" for one in needed if one.state != status.PRESENT]
    if benchmark.question_path(root).is_file():
        try:
            lines += [path for path in status.absent_images(benchmark, root) if not any(path in x for x in lines)]
        except BadData as error:
            lines.append(str(error))
    return lines + status.check_sums(benchmark, root)


def convert_command(config: ConvertConfig) -> None:
    """Convert or place every source, rebuild the question file if it is not there, say what is still missing."""
    benchmark = benchmarks.get(config.benchmark)
    root = Path(config.output) if config.output else data.data_home() / benchmark.folder
    sources = [Path(source) for source in config.sources]
    tables = [path for source in sources for path in _tables(source)]
    if tables:
        mirrors.convert(benchmark.name, tables, root)
        say(f"Converted: {len(tables)} parquet files into {root}")
    for source in sources:
        if source not in tables:
            count = placing.place(benchmark.name, source, root)
            if not count and not _tables(source):
                raise BadInput(f"{source} holds nothing that {benchmark.title} needs. It needs: {_wanted(benchmark)}.")
            say(f"Placed: {count} files of {source}")
    rebuild = questions.REBUILD.get(benchmark.name)
    if rebuild and not benchmark.question_path(root).exists() and (not sources or _rebuildable(benchmark, root)):
        say(f"Rebuilt: {rebuild(root)}")
    for one in _needed(status.look(benchmark, root)):
        if one.state == status.MISSING:
            say(f"Still missing: {one.path} (from {one.item.source})")


def _tables(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(source.rglob("*.parquet"))
    return [source] if source.suffix.lower() == ".parquet" else []


def _wanted(benchmark: Benchmark) -> str:
    return ", ".join(item.path for item in CATALOGUE[benchmark.name].items)


def _rebuildable(benchmark: Benchmark, root: Path) -> bool:
    """Whether the labels (which the question file is rebuilt from) are there; without sources a failure is told."""
    extra = placing.EXTRA.get(benchmark.name, ())
    others = [root / name for name in extra] or benchmark.label_files(root, [])
    return bool(others) and all(path.exists() for path in others)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["convert"]:
        return run(convert_command, ConvertConfig, words[1:], prog="python -m llava.data convert")
    return run(status_command, StatusConfig, words, prog="python -m llava.data")


if __name__ == "__main__":
    sys.exit(main())
