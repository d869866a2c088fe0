"""The paper's figures drawn anew from results, and one of all methods; each is one entry of `ARTEFACTS`."""

from llava.report.figures.bars import AgainstRandom, PivotSource
from llava.report.figures.diagram import Diagram
from llava.report.figures.glance import AllMethods
from llava.report.figures.looks import Captions, PivotMasks
from llava.report.figures.sweeps import PivotCount, PrunedLayer
from llava.report.figures.tradeoff import ScoreAgainstTime

ARTEFACTS = (
    Captions(),
    AgainstRandom(),
    Diagram(),
    ScoreAgainstTime(),
    PrunedLayer(),
    PivotCount(),
    PivotSource(),
    PivotMasks(),
    AllMethods(),
)
"""Figures 1 to 8, and `budget`."""

__all__ = ["ARTEFACTS"]
