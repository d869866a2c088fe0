"""Results recorded from other official implementations: one JSON and one NPZ file per method."""

import json
from typing import Any

import numpy
import torch
from torch import Tensor

from tests.conftest import SHARED

FOLDER = SHARED / "golden"


def cases(method: str) -> list[dict[str, Any]]:
    """The recorded cases of a method, an empty list if there are no records."""
    path = FOLDER / f"{method}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def names(method: str, **hyper: Any) -> list[str]:
    """Names of the cases whose hyper-parameters have these values."""
    return [case["name"] for case in cases(method) if all(case["hyper"].get(k) == v for k, v in hyper.items())]


def load(method: str, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyper-parameters and arrays of one case."""
    hyper = next(case["hyper"] for case in cases(method) if case["name"] == name)
    with numpy.load(FOLDER / f"{method}.npz") as file:
        arrays = {
            key.removeprefix(f"{name}/"): torch.from_numpy(file[key]) for key in file if key.startswith(f"{name}/")
        }
    return hyper, arrays
