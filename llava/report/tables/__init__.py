"""The paper's tables, from results."""

from __future__ import annotations

from collections.abc import Sequence

from llava.report.artefacts import Artefact
from llava.report.tables.efficiency import EfficiencyTable
from llava.report.tables.scores import ScoreTable
from llava.report.tables.video import VideoTable


def tables(more: Sequence[str] = ()) -> list[Artefact]:
    """Return Tables 1 to 6.

    Args:
        more: methods besides the paper's that get lines of their own where they work.
    """
    return [
        ScoreTable("1", more),
        EfficiencyTable(more),
        ScoreTable("3", more),
        ScoreTable("4", more),
        VideoTable(more),
        ScoreTable("6", [name for name in more if name == "random"]),
    ]
