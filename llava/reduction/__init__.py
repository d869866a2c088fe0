"""WHAT survives: one file per method, the base classes, the register. Imports torch only."""

from llava.reduction import registry
from llava.reduction.base import InLLM, LayerState, Reduction
from llava.reduction.dart import DART
from llava.reduction.groups import Groups
from llava.reduction.none import NoReduction
from llava.reduction.random import Random
from llava.reduction.registry import register

__all__ = ["DART", "Groups", "InLLM", "LayerState", "NoReduction", "Random", "Reduction", "register", "registry"]
