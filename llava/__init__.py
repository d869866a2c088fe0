"""DART on LLaVA: load a model, prune its visual tokens inside the language model, count what was kept.

The public names are imported when first used, so that `import llava` itself is quick.
"""

from importlib import import_module

__version__ = "0.1.0"

_METHODS = (
    "Chain",
    "DART",
    "DARTFeatures",
    "DivPrune",
    "FastV",
    "FasterVLM",
    "FiCoCoV",
    "GlobalCom2",
    "HiRED",
    "MustDrop",
    "NoReduction",
    "Pooling",
    "PruMerge",
    "PruMergePlus",
    "PyramidDrop",
    "Random",
    "SmallerImage",
    "SparseVLM",
    "ToMe",
    "Uniform",
    "VisionZip",
)
_HOMES = {
    "load": "llava.model.builder",
    "calibrate": "llava.model.calibrate",
    "Report": "llava.model.report",
    "Reuse": "llava.model.reuse",
    **dict.fromkeys(_METHODS, "llava.reduction"),
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'llava' has no attribute '{name}'; public names: {', '.join(sorted(_HOMES))}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
