"""The results a table or figure is made from: read once, matched by what was run, never by file names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import BadInput
from llava.eval import benchmarks, identity
from llava.methodoptions import MethodOptions
from llava.report import records, targets
from llava.report.cells import Cell, Source, Target, method_of
from llava.report.targets import Record

if TYPE_CHECKING:
    from llava.eval.asking import LoadedModel

KERNEL = ("dtype", "attention")
"""What all results of one table share, besides the model."""


@dataclass(frozen=True)
class Wanted:
    """The method a cell asks for: its name, all its options, and their defaults."""

    name: str
    options: Mapping[str, Any]
    usual: Mapping[str, Any]


class Store:
    """Results of one model out of several folders.

    Args:
        source: folders, and which model, data and number of questions are meant.
    """

    def __init__(self, source: Source):
        self.source = source
        found = records.scan(source.folders)
        self.unreadable, self._others = found.problems, found.others
        self.everything = found.records
        self.questions: dict[str, str] = {}
        """Benchmark -> digest of the questions that are meant; known once they are loaded."""
        self._loaded: LoadedModel | None = None
        self._methods: dict[MethodOptions, Wanted | None] = {}

    # ------------------------------------------------------------------------------------------------------ the model

    @cached_property
    def target(self) -> Target:
        """The model that is meant."""
        return targets.target_of(self.source, self.everything)

    def loaded(self) -> LoadedModel:
        """Return the model and its processor, loaded at the first call."""
        if self._loaded is None:
            self._loaded = targets.load(self.source, self.target)
            self.__dict__.pop("_chosen", None)  # which results are its own is known only now
        return self._loaded

    # ---------------------------------------------------------------------------------------------------- the results

    @cached_property
    def _chosen(self) -> dict[tuple[str, str], list[Record]]:
        """(benchmark, method) -> results of the model that is meant, newest first."""
        grouped: dict[tuple[str, str], list[Record]] = {}
        several = self.target.embedded and targets.several_weights(self.target, self.everything)
        if several and self.source.weights is None:
            self.loaded()  # small enough to be asked which of them is meant
        own = targets.own_results(self.source, self.target, self.everything, self._loaded)
        for record in sorted(own, key=lambda record: record["finished"], reverse=True):
            grouped.setdefault((record["benchmark"], record["method"]["name"]), []).append(record)
        return grouped

    @property
    def left_aside(self) -> int:
        """Results in the folders that are of other models, weights or kernels than what is meant."""
        return len(self.everything) - sum(map(len, self._chosen.values()))

    def all(self, method: str | None = None) -> list[Record]:
        """Return all results of the model that is meant (of one method)."""
        return [r for (_, name), group in self._chosen.items() for r in group if method in (None, name)]

    def add(self, record: Record) -> None:
        """Take a new result in."""
        self.everything.append(record)
        self.__dict__.pop("_chosen", None)

    def get(self, cell: Cell) -> Record | None:
        """Return the newest result of a cell, or None."""
        return next(iter(self._matching(cell)), None)

    def records(self, cells: Iterable[Cell]) -> dict[Cell, Record]:
        """Return the results that are there, by cell.

        Raises:
            BadInput: they do not belong together: other questions of one benchmark, or another kernel or precision.
        """
        asked = list(dict.fromkeys(cells))
        by_cell = {cell: matching for cell in asked if (matching := self._matching(cell))}
        self._one_question_set(by_cell)
        found = {cell: matching[0] for cell, matching in by_cell.items()}
        self._one_kernel(found.values())
        return found

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells without a result, each once; a method without such a setting has no cell."""
        found: dict[str, Cell] = {}
        for cell in dict.fromkeys(cells):
            wanted = self._wanted(cell)
            if wanted is not None and self.get(cell) is None:
                found.setdefault(f"{cell.benchmark} {wanted.name} {wanted.options}", cell)
        return list(found.values())

    def _matching(self, cell: Cell) -> list[Record]:
        wanted = self._wanted(cell)
        if wanted is None:
            return []
        longest = benchmarks.get(cell.benchmark).max_new_tokens
        return [
            record
            for record in self._chosen.get((cell.benchmark, wanted.name), [])
            # An option that a result does not know came later; the result was made with its default.
            if {**wanted.usual, **record["method"].get("options", {})} == wanted.options
            and record.get("max_new_tokens", longest) == longest
            and self._asked_alike(record)
        ]

    def _wanted(self, cell: Cell) -> Wanted | None:
        if cell.options not in self._methods:
            method = method_of(cell, self.target, self.source.seed)
            made = None
            if method is not None:
                record, usual = (identity.method_record(one) for one in (method, type(method)()))
                made = Wanted(record["name"], record["options"], usual["options"])
            self._methods[cell.options] = made
        return self._methods[cell.options]

    def _asked_alike(self, record: Record) -> bool:
        """Whether a result stands for the questions that are meant: the same ones, or as many as `limit` says."""
        known = self.questions.get(record["benchmark"])
        if known is not None:
            return question_set(record) == known
        source, samples = self.source, record["samples"]
        if source.data in ("full", "mini") and record["split"] != source.data:
            return False
        limit, whole = samples.get("limit"), samples.get("in_data_set", samples["scored"])
        return source.limit is None or limit == source.limit or (limit is None and whole <= source.limit)

    def _one_question_set(self, found: Mapping[Cell, Sequence[Record]]) -> None:
        sets: dict[str, dict[str, Record]] = {}
        for cell, matching in found.items():
            for record in matching:
                sets.setdefault(cell.benchmark, {}).setdefault(question_set(record), record)
        problems = [
            f"{benchmark}: results of different questions ("
            + ", ".join(sorted(f"{r['samples']['scored']} of the {r['split']} data" for r in several.values()))
            + ")"
            for benchmark, several in sets.items()
            if len(several) > 1
        ]
        if problems:
            raise BadInput(
                f"{'; '.join(problems)}. One column is one set of questions: add --limit N or --data, or give only "
                "folders whose results belong together."
            )

    def _one_kernel(self, found: Iterable[Record]) -> None:
        chosen = list(found)
        for name in KERNEL:
            values = sorted({str(record[name]) for record in chosen})
            if len(values) > 1:
                flag = "--attn-implementation" if name == "attention" else f"--{name}"
                raise BadInput(f"The results differ in {name} ({', '.join(values)}): choose one with {flag}.")
        pixels = sorted({str(targets.configured(record, "pixels")) for record in chosen})
        if len(pixels) > 1:
            raise BadInput(
                f"The results differ in the pixels of their images ({'; '.join(pixels)}): give other folders."
            )

    def files(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return the other JSON files of the folders that have a key `kind` ("bench", "analysis"), by name."""
        return [(path, content) for path, content in self._others if kind in content]


def question_set(record: Record) -> str:
    """Return what tells two sets of questions apart."""
    digest = (targets.configured(record, "questions") or {}).get("digest")
    return digest or f"{record['split']} {record['samples']['scored']}"


def version_of(record: Record) -> dict[str, str]:
    """Return what made a result: the versions of the packages, and the code that decides predictions."""
    versions = {
        name: record["versions"][name] for name in ("llava", "torch", "transformers") if name in record["versions"]
    }
    code = targets.configured(record, "code")
    return {**versions, **({"code": code} if code else {})}
