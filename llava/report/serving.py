"""The command `python -m llava.report serving`: what serving through vLLM costs in accuracy and gains in requests.

vLLM can only be given fewer tokens before the language model, so methods that do that are compared with DART inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.commandline import say
from llava.report.records import Record

INSIDE, FAMILY = "dart", "llava"
OUTSIDE = "dart_features"
ACCURACY, THROUGHPUT, SERVED = "accuracy", "throughput", "served"


@dataclass(frozen=True)
class Serving:
    """Compare the methods that vLLM can serve with DART inside the language model, and show vLLM's throughput."""

    results: Path = Path("docs/results/nano-methods")
    """Folder with results JSON files of a LLaVA-1.5."""
    throughput: Path = Path("docs/results/serving-vllm-cpu-nano.json")
    """Result of `python -m llava.bench serving`."""
    update: Path | None = None
    """Markdown file whose lines between `<!-- accuracy -->` and `<!-- end of accuracy -->`, and between
    `<!-- throughput -->` and `<!-- end of throughput -->`, become the two tables."""
    sentence: Path | None = None
    """Markdown file whose lines between `<!-- served -->` and `<!-- end of served -->` become one sentence."""


def serving(config: Serving) -> None:
    """Show both tables, and write them into a page if one is given; it is written whole or not at all."""
    from llava.bench import results
    from llava.eval import screen
    from llava.report import records, summary

    found = chosen(records.read(config.results))
    measured = results.read(config.throughput, "serving")
    tables = {
        ACCURACY: (summary.table(found, times=False, against=INSIDE), summary.setting(found)),
        THROUGHPUT: (throughput(measured["rows"]), setting(measured)),
    }
    page = config.update.read_text(encoding="utf-8") if config.update and config.update.is_file() else ""
    for mark, ((header, rows), told) in tables.items():
        for line in ("", *screen.table(header, rows), "", told):
            say(line)
        if config.update is not None:
            page = summary.replaced(page, str(config.update), f"{summary.markdown(header, rows)}\n\n{told}\n", mark)
    if config.update is not None:
        config.update.write_text(page, encoding="utf-8")
        say(f"Updated: {config.update}")
    told = sentence(*tables[ACCURACY][0])
    for line in ("", told):
        say(line)
    if config.sentence is not None:
        summary.update(config.sentence, f"{told}\n", SERVED)


def chosen(records: Sequence[Record]) -> list[Record]:
    """Return the runs without pruning, with DART, and with the methods that vLLM can serve for LLaVA-1.5.

    Raises:
        BadData: no method is among them that vLLM can serve.
    """
    from llava.errors import BadData
    from llava.report.summary import NONE
    from llava.serve.vllm import settings

    served = settings.servable(FAMILY)
    names = {record["method"]["name"] for record in records}
    if not names & set(served):
        raise BadData(
            f"None of the results is of a method that vLLM can serve ({', '.join(served)}). Make some, for example: "
            f"python -m llava.eval textvqa --method {NONE},{INSIDE},{served[0]} --preset 128"
        )
    return [record for record in records if record["method"]["name"] in (NONE, INSIDE, *served)]


def sentence(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return what is left of the unpruned score with DART inside the model, with its criterion before it, and at best.

    Args:
        header, rows: the table of accuracies; budgets from large to small.
    """
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    budgets = list(dict.fromkeys(cell["asked"] for cell in cells if cell["method"] == INSIDE))
    shares = {(cell["method"], cell["asked"]): cell["relative"].partition(" ")[0] for cell in cells}
    before = {name for name, budget in shares if budget in budgets and name != INSIDE}
    best = [max(before, key=lambda name: float(shares.get((name, budget), 0))) for budget in budgets]

    def listed(words: Sequence[str]) -> str:
        return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])

    def told(name: str) -> str:
        return f"`{name}` {listed([shares.get((name, budget), '-') for budget in budgets])} %"

    finest = listed([f"`{name}` {shares[name, budget]} %" for name, budget in zip(best, budgets, strict=True)])
    return (
        f"Of the unpruned score are left at {listed(budgets)} tokens: inside the language model {told(INSIDE)}; "
        f"before it {told(OUTSIDE)}, and at best {finest}."
    )


def throughput(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the settings that were asked in turn; speed-ups with quartiles."""
    header = ["method", "prompt tokens", "requests/s", "tokens/s", "speed-up (quartiles)"]
    return header, [
        [
            row["label"],
            f"{row['prompt_tokens']:.0f}",
            f"{row['requests_per_second']:.1f}",
            f"{row['tokens_per_second']:.0f}",
            "{median:.2f}x ({low:.2f} to {high:.2f})".format(**row["speedup"]),
        ]
        for row in rows
    ]


def setting(content: Mapping[str, Any]) -> str:
    """Return one line: model, requests, machine and versions of a throughput measurement."""
    options, place = content["options"], content["environment"]
    load = place.get("load_average")
    busy = "not recorded" if load is None else f"{load:.1f}"
    return (
        f"{content['subject']['model']}, {options['requests']} requests at once, {options['new_tokens']} tokens per "
        f"answer, images of {options['image_size']} pixels, {options['repeats']} rounds, {place['device']} "
        f"({place['cpu_count']} cores, load at the start {busy}), {options['dtype']}, "
        f"vLLM {place['versions']['vllm']}, torch {place['versions']['torch']}"
    )
