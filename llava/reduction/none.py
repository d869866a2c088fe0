"""No reduction: the unpruned model, counted with the same accounting as every method.

Source: no paper; the reference.
Differences from the official code: there is no official code.

How it selects: it does not. The model's own forward runs; only tokens, cache and operations are counted.

When not to use it: it saves nothing. It is there to compare with.
"""

from dataclasses import dataclass
from typing import ClassVar

from llava.reduction.base import Reduction
from llava.reduction.registry import register


@register("none")
@dataclass(frozen=True)
class NoReduction(Reduction):
    """Keep every visual token; the model computes exactly what it does without this class."""

    stage: ClassVar[str] = "nowhere"
    depends_on_question: ClassVar[bool] = False
