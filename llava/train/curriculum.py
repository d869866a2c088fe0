"""The curriculum llava-nano was trained with: dense labels first, then windows that grow, full images at the end."""

from __future__ import annotations

from .data import Stage
from .examples import Difficulty

FULL = 24  # patches on a side of the whole image
LAST = Difficulty(side=FULL, things=7, radius=(17.0, 40.0))

STAGES = [
    Stage("tower-10", 1200, 64, Difficulty(10, 3, (14, 26), sign=0.5), lr=2e-3, questions=False),
]
# What the last stage looks like without language: the measure of held-out accuracy.
EXAM = Stage("exam", 1, 8, LAST, full_prompt=True)
