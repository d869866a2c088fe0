"""No reduction: the unpruned model, counted with the same accounting as every method."""

from dataclasses import dataclass
from typing import ClassVar

from llava.reduction.base import Reduction
from llava.reduction.registry import register


@register("none")
@dataclass(frozen=True)
class NoReduction(Reduction):
    """Keep every visual token; the model computes exactly what it does without this class."""

    stage: ClassVar[str] = "nowhere"
