"""The paper's claims, each with what the results here say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llava.errors import BadData
from llava.report import artefacts, paper
from llava.report.artefacts import Sheet
from llava.report.cells import Cell, Target
from llava.report.claims import quality, speed, sweeps
from llava.report.claims.evidence import Evidence
from llava.report.claims.verdict import FAILS, HOLDS, PARTLY, UNTESTED, Verdict
from llava.report.store import Store
from llava.report.summary import markdown
from llava.report.tables.notes import left_over, surroundings

__all__ = ["Claims", "Verdict", "texts", "verdicts"]

FILE = paper.FILE.with_name("claims.json")
TESTS: dict[str, Callable[[Evidence, Mapping[str, Any]], Verdict]] = {
    "1": speed.speed_of_dart,
    "2": speed.speed_of_others,
    "3": speed.drop_on_pope,
    "4": speed.sparsevlm_is_slower,
    "5": speed.selection_time,
    "6": quality.averages_and_margins,
    "7": quality.next_average,
    "8": quality.random_pivots,
    "9": quality.every_criterion,
    "10": quality.attention_pivots,
    "11": sweeps.overlap,
    "12": sweeps.late_layers,
    "13": sweeps.number_of_pivots,
    "14": sweeps.source_of_pivots,
    "15": quality.worse_than_random,
    "16": quality.video,
    "17": speed.efficient_attention,
}
MADE_FROM = ("table1", "table2", "table5", "table6", "figure5", "figure6", "figure7")
"""Tables and figures whose results the claims need."""


@lru_cache(maxsize=1)
def texts() -> dict[str, dict[str, Any]]:
    """Return number -> the claim in words (`text`) and the numbers it is judged by."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def verdicts(store: Store) -> dict[str, Verdict]:
    """Return number -> what the results of a store say of the claim."""
    evidence = Evidence(store)
    return {number: test(evidence, texts()[number]) for number, test in TESTS.items()}


@dataclass(frozen=True)
class Claims:
    """The claims as a table."""

    name = "claims"
    title = "The paper's claims and what was measured here"

    def cells(self, target: Target) -> list[Cell]:
        known = [artefact for artefact in artefacts.everything(("random",)) if artefact.name in MADE_FROM]
        return [cell for artefact in known for cell in artefact.cells(target)]

    def make(self, store: Store, output: Path) -> list[Path]:
        found = verdicts(store)
        if all(verdict.outcome == UNTESTED for verdict in found.values()):
            advice = artefacts.missing_advice(store, self.cells(store.target), self.name)
            raise BadData(f"No results to judge the claims by. {advice}")
        rows = [[number, texts()[number]["text"], *asdict(verdict).values()] for number, verdict in found.items()]
        counts = {name: sum(v.outcome == name for v in found.values()) for name in (HOLDS, PARTLY, FAILS, UNTESTED)}
        notes = [
            f"Judged on {store.target.name} and on the `llava.bench` and `llava.analysis` files of the folders: "
            + ", ".join(f"{count} {name}" for name, count in counts.items())
            + ".",
            "The outcomes speak of these results only"
            + (": one small model and small data neither prove nor refute the paper." * store.target.embedded or "."),
            *surroundings(store.all()),
            *left_over(store),
            artefacts.command_of(store, self.name),
        ]
        shown = [[number, text, here, f"**{outcome}**"] for number, text, outcome, here, _ in rows]
        body = markdown(["#", "the paper says", "measured here", "outcome"], shown, words=4)
        rules = [f"{number} holds when {rule}." for number, _, _, _, rule in rows]
        text = artefacts.page(self.title, body, [*notes, *rules])
        content = {
            "title": self.title,
            "model": store.target.name,
            "claims": [
                {"number": int(number), "claim": text_, "outcome": outcome, "here": here, "rule": rule}
                for number, text_, outcome, here, rule in rows
            ],
            "notes": notes,
        }
        header = ["number", "claim", "outcome", "here", "rule"]
        return artefacts.write(Sheet(text, header, rows, content), output, self.name)
