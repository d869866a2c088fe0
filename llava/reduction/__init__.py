"""WHAT survives: one file per method, the base classes, the register. Imports torch only."""

from llava.reduction import registry
from llava.reduction.base import CacheState, InLLM, LayerState, LLMStage, Reduction, Selection
from llava.reduction.chain import Chain
from llava.reduction.dart import DART
from llava.reduction.divprune import DivPrune
from llava.reduction.fastv import FastV
from llava.reduction.groups import Groups
from llava.reduction.image import BeforeLLM, Encoder, ImageState, Kept, TowerInfo, TowerLayer
from llava.reduction.none import NoReduction
from llava.reduction.pooling import Pooling
from llava.reduction.random import Random
from llava.reduction.registry import register
from llava.reduction.schedule import Schedule
from llava.reduction.smallimage import SmallerImage
from llava.reduction.uniform import Uniform

__all__ = [
    "BeforeLLM",
    "CacheState",
    "Chain",
    "DART",
    "DivPrune",
    "Encoder",
    "FastV",
    "Groups",
    "ImageState",
    "InLLM",
    "Kept",
    "LLMStage",
    "LayerState",
    "NoReduction",
    "Pooling",
    "Random",
    "Reduction",
    "Schedule",
    "Selection",
    "SmallerImage",
    "TowerInfo",
    "TowerLayer",
    "Uniform",
    "register",
    "registry",
]
