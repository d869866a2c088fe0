"""WHAT survives: one file per method, the base classes, the register. Imports torch only."""

from llava.reduction import registry
from llava.reduction.base import CacheState, InLLM, LayerState, LLMStage, Reduction, Selection
from llava.reduction.chain import Chain
from llava.reduction.dart import DART
from llava.reduction.dart_features import DARTFeatures
from llava.reduction.divprune import DivPrune
from llava.reduction.fastervlm import FasterVLM
from llava.reduction.fastv import FastV
from llava.reduction.ficoco_v import FiCoCoV
from llava.reduction.globalcom2 import GlobalCom2
from llava.reduction.groups import Groups
from llava.reduction.hired import HiRED
from llava.reduction.image import BeforeLLM, Encoder, ImageState, Kept, TowerInfo, TowerLayer
from llava.reduction.mustdrop import MustDrop
from llava.reduction.none import NoReduction
from llava.reduction.pooling import Pooling
from llava.reduction.prumerge import PruMerge, PruMergePlus
from llava.reduction.pyramiddrop import PyramidDrop
from llava.reduction.random import Random
from llava.reduction.registry import register
from llava.reduction.schedule import Schedule
from llava.reduction.smallimage import SmallerImage
from llava.reduction.sparsevlm import SparseVLM
from llava.reduction.tome import ToMe
from llava.reduction.uniform import Uniform
from llava.reduction.visionzip import VisionZip

__all__ = [
    "BeforeLLM",
    "CacheState",
    "Chain",
    "DART",
    "DARTFeatures",
    "DivPrune",
    "Encoder",
    "FastV",
    "FasterVLM",
    "FiCoCoV",
    "GlobalCom2",
    "Groups",
    "HiRED",
    "ImageState",
    "InLLM",
    "Kept",
    "LLMStage",
    "LayerState",
    "MustDrop",
    "NoReduction",
    "Pooling",
    "PruMerge",
    "PruMergePlus",
    "PyramidDrop",
    "Random",
    "Reduction",
    "Schedule",
    "Selection",
    "SmallerImage",
    "SparseVLM",
    "ToMe",
    "TowerInfo",
    "TowerLayer",
    "Uniform",
    "VisionZip",
    "register",
    "registry",
]
