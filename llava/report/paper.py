"""The numbers the paper prints in Tables 1 to 6, and its averages, formed again from the printed scores."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llava.errors import BadInput

FILE = Path(__file__).resolve().parents[1] / "assets" / "paper" / "tables.json"
NUMBERS = ("1", "2", "3", "4", "5", "6")
HALF_A_DIGIT = 0.0505
"""A printed average with one decimal stands for what lies this near to it (with room for binary fractions)."""
UPPER_BOUND = "upper_bound"
COLUMNS = {
    "gqa": ("GQA", "gqa"),
    "mmbench_en": ("MMB", "mmbench"),
    "mmbench_cn": ("MMB-CN", "mmbench_cn"),
    "mme": ("MME", "mme"),
    "pope": ("POPE", "pope"),
    "scienceqa_img": ("SQA", "scienceqa"),
    "scienceqa": ("SQA", "scienceqa"),
    "vqav2": ("VQAv2", "vqav2"),
    "textvqa": ("TextVQA", "textvqa"),
    "vizwiz": ("VizWiz", "vizwiz"),
    "ocrbench": ("OCRBench", "ocrbench"),
    "tgif_qa": ("TGIF", "tgif_qa"),
    "msvd_qa": ("MSVD", "msvd_qa"),
    "msrvtt_qa": ("MSRVTT", "msrvtt_qa"),
}
"""Column of the paper's tables -> (heading, benchmark that fills it)."""
METHODS = {"vanilla": "none", "llava_prumerge": "prumerge", "pdrop": "pyramiddrop"}
"""The paper's method names that are not ours."""
LABELS = {"vanilla": "Vanilla", "fastv": "FastV", "sparsevlm": "SparseVLM", "dart": "DART"}
FAMILIES = {
    "LLaVA-1.5-7B": "llava",
    "LLaVA-Next-7B": "llava_next",
    "Qwen2-VL-7B": "qwen2_vl",
    "MiniCPM-V-2.6": "minicpm_v",
    "Video-LLaVA-7B": "video_llava",
}
"""The paper's models and their families."""
REDUCTIONS = {"retain_192": 0.667, "retain_128": 0.778, "retain_64": 0.889, "retain_320": 0.889}


@dataclass(frozen=True)
class PaperRow:
    """One printed row of Tables 1, 3, 4 and 6.

    Args:
        model: e.g. "LLaVA-1.5-7B".
        setting: `upper_bound`, `retain_<count>` or `reduce_<percent>`.
        method: the paper's name for it, in lower case.
        label: as printed.
        venue: where it was published (Table 1).
        pivot: DART's pivot criterion (Table 6).
        metrics: column -> score, None where the paper prints a dash.
        printed: the average as printed.
    """

    model: str
    setting: str
    method: str
    label: str
    metrics: Mapping[str, float | None]
    printed: float | None
    venue: str = ""
    pivot: str | None = None

    @property
    def ours(self) -> str:
        """Our name of the method."""
        return METHODS.get(self.method, self.method)

    @property
    def removed(self) -> float:
        """Fraction of the visual tokens that is removed."""
        if self.setting == UPPER_BOUND:
            return 0.0
        kind, _, number = self.setting.partition("_")
        return float(number) / 100 if kind == "reduce" else REDUCTIONS[self.setting]


@dataclass(frozen=True)
class Average:
    """An average over benchmarks: its value, over how many, and what the paper prints for it.

    `value` is None where nothing can be averaged.
    """

    value: float | None
    count: int
    printed: float | None = None

    @property
    def reproduced(self) -> bool | None:
        """Whether the value rounds to the printed one; None without a printed one."""
        if self.printed is None or self.value is None:
            return None
        return abs(self.value - self.printed) <= HALF_A_DIGIT


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def raw(number: str) -> Mapping[str, Any]:
    """Return a table as it stands in the data file: `title`, `columns`, `rows`.

    Raises:
        BadInput: there is no such table.
    """
    if str(number) not in NUMBERS:
        raise BadInput(f"The paper has no table {number}: give one of {', '.join(NUMBERS)}.")
    return _tables()[str(number)]


def rows(number: str) -> list[PaperRow]:
    """Return the rows of Table 1, 3, 4 or 6 in the order of the paper."""
    table = raw(number)
    return [
        PaperRow(
            row["model"],
            row["setting"],
            row["method"],
            row.get("label") or LABELS[row["method"]],
            dict(zip(table["columns"], row["metrics"], strict=True)),
            row["average"],
            row.get("venue", ""),
            row.get("pivot"),
        )
        for row in table["rows"]
    ]


def relative(scores: Mapping[str, float | None], vanilla: Mapping[str, float | None]) -> tuple[float | None, int]:
    """Return the paper's average and over how many benchmarks it is: the mean of 100 * score / unpruned score.

    Benchmarks without a number are left out; ratios above 100 % are not clipped; MME enters as the ratio of the sums.
    """
    shares = [
        100 * score / whole
        for name, score in scores.items()
        if score is not None and (whole := vanilla.get(name)) is not None and whole
    ]
    return (statistics.fmean(shares) if shares else None), len(shares)


def average(row: PaperRow, table: Sequence[PaperRow]) -> Average:
    """Return the average of a printed row, formed again, beside the printed one."""
    vanilla = next(other for other in table if other.model == row.model and other.setting == UPPER_BOUND)
    value, count = relative(row.metrics, vanilla.metrics)
    return Average(value, count, row.printed)


def plain(values: Sequence[float | None], printed: float | None) -> Average:
    """Return the plain mean of Table 5; None unless every value is there."""
    known = [value for value in values if value is not None]
    return Average(statistics.fmean(known) if len(known) == len(values) else None, len(known), printed)
