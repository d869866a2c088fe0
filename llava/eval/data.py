"""Where benchmark data lies: full sets dropped in by the user, the mini sets that come along, or any other folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import MissingData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Benchmark, Question

LAYOUT = Path("playground") / "data" / "eval"


def data_home() -> Path:
    """Return `playground/data/eval` of the current folder, or else the one that stands beside the package."""
    return LAYOUT if LAYOUT.is_dir() else Path(__file__).resolve().parents[2] / LAYOUT


@dataclass(frozen=True)
class DataSet:
    """Data of one benchmark: its folder and whether it is the `full`, the `mini` or a user's own (`custom`) set."""

    benchmark: Benchmark
    root: Path
    kind: str

    @property
    def is_full(self) -> bool:
        return self.kind == "full"


def locate(benchmark: Benchmark, choice: str | None = None, home: Path | None = None) -> DataSet:
    """Return the data set to use.

    Args:
        benchmark: whose data.
        choice: "full", "mini", the path of a folder in the official layout (of this benchmark, or with one folder per
            benchmark), or None: full as soon as one of its files is there, else mini.
        home: folder that holds one folder per benchmark; `data_home()` when None.
    """
    folder = (home or data_home()) / benchmark.folder
    if choice not in (None, "full", "mini"):
        here = DataSet(benchmark, Path(choice), "custom")
        inner = here.root / benchmark.folder
        if any(path.exists() for path in skeleton(here)) or not inner.is_dir():
            return here
        return DataSet(benchmark, inner, "custom")
    if choice is None:
        full = DataSet(benchmark, folder, "full")
        started = [path for path in skeleton(full) if path.exists()]
        choice = "full" if started or not (folder / "mini").is_dir() else "mini"
    return DataSet(benchmark, folder / "mini" if choice == "mini" else folder, choice)


def skeleton(data: DataSet) -> list[Path]:
    """Return the question file, the image folders and the label files that do not depend on the questions."""
    root, benchmark = data.root, data.benchmark
    return [benchmark.question_path(root), *benchmark.label_files(root, []), *benchmark.image_folders(root)]


def missing(data: DataSet, questions: Sequence[Question] | None, images_too: bool = True) -> list[str]:
    """Return every missing path that answering (and scoring) the questions needs; None: the questions are not there."""
    if questions is None:
        return files.missing_paths(skeleton(data))
    labels = data.benchmark.label_files(data.root, questions)
    images = [question.image for question in questions if images_too and isinstance(question.image, Path)]
    return files.missing_paths([*labels, *images])


def advice(sets: Sequence[DataSet]) -> str:
    """Return what to type when data is missing."""
    sentence = "The folders are described in playground/README.md."
    if any(data.is_full and (data.root / "mini").is_dir() for data in sets):
        sentence += " The small sets that come along need no download: add --data mini."
    return sentence


def load_questions(
    sets: Sequence[DataSet], family: str, limit: int | None, allow_missing: bool = False
) -> list[list[Question]]:
    """Return the questions of every set; with `allow_missing`, images and videos need not be there.

    Raises:
        MissingData: lists every missing path of every set together.
        BadData: malformed question rows.
    """
    loaded: list[list[Question]] = []
    absent: list[str] = []
    for data in sets:
        if not data.benchmark.question_path(data.root).is_file():
            absent += missing(data, None)
            continue
        questions = data.benchmark.questions(data.root, family, limit)
        absent += missing(data, questions, not allow_missing)
        loaded.append(questions)
    if absent:
        lines = files.shortened(list(dict.fromkeys(absent)))
        raise MissingData("\n".join(["Missing data:", *lines, advice(sets)]))
    return loaded
