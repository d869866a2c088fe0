"""Weight files: find them, tell what is wrong with them before any layer is built, and read them without unpickling."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llava.errors import CheckpointError, first_line
from llava.model.checkpoints import read_json, some

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a folder, all of them there.

    Args:
        folder: where they are.
        names: file names, sorted.
        index: name of the index file; None for a single file.
        weight_map: key -> file name, as the index says.
    """

    folder: Path
    names: tuple[str, ...]
    index: str | None = None
    weight_map: dict[str, str] | None = None

    @property
    def safe(self) -> bool:
        """Whether they are safetensors files."""
        return self.names[0].endswith(".safetensors")


def find_weights(folder: Path) -> WeightFiles:
    """Return the weight files of a folder; safetensors are preferred to pickled files.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    for single, index in ((SAFE, SAFE_INDEX), (PICKLED, PICKLED_INDEX)):
        if (folder / index).is_file():
            weight_map = read_json(folder / index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{folder / index} has no weight_map.")
            files = WeightFiles(folder, tuple(sorted(set(weight_map.values()))), index, weight_map)
            break
        if (folder / single).is_file():
            return WeightFiles(folder, (single,))
    else:
        others = sorted(file.name for pattern in ("*.pt", "*.pth", "*.bin") for file in folder.glob(pattern))
        found = f" It has {', '.join(others)}, which is not read." if others else ""
        raise CheckpointError(
            f"{folder} has no weights: {SAFE}, {PICKLED}, or an index file with its shards is needed.{found}"
        )
    absent = [name for name in files.names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks the weight files {', '.join(absent)}: the download is not complete.")
    return files


def check_weights(files: WeightFiles) -> None:
    """Check that every safetensors file is whole and holds what the index says; no weight is read.

    Raises:
        CheckpointError: names the file and, where it is about keys, the keys.
    """
    _check_keys(files, {name: _safe_keys(files.folder / name) for name in files.names})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all weights of a folder by their names; they stay in the files until they are used.

    Pickled files are read with PyTorch's weights-only loader, which builds tensors and nothing else.

    Raises:
        CheckpointError: a file is missing, damaged, holds anything but tensors, or does not fit the index.
    """
    files = find_weights(folder)
    loaded = {name: (_read_safe if files.safe else _read_pickled)(folder / name) for name in files.names}
    _check_keys(files, {name: list(weights) for name, weights in loaded.items()})
    return {key: tensor for weights in loaded.values() for key, tensor in weights.items()}


def _check_keys(files: WeightFiles, keys: dict[str, list[str]]) -> None:
    holder: dict[str, str] = {}
    for name, held in keys.items():
        for key in held:
            if key in holder:
                raise CheckpointError(f"{files.folder}: weight {key} is both in {holder[key]} and in {name}.")
            holder[key] = name
    if files.weight_map is None:
        return
    wrong = [key for key, name in files.weight_map.items() if holder.get(key) != name]
    extra = [key for key in holder if key not in files.weight_map]
    if wrong or extra:
        raise CheckpointError(
            f"{files.folder}: the shards do not hold what {files.index} says"
            + (f"; not where they should be: {some(wrong)}" if wrong else "")
            + (f"; not in the index: {some(extra)}" if extra else "")
            + "."
        )


def _safe_keys(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _read_safe(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _read_pickled(file: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # the name of a function or class that is no part of a tensor
            raise _refused(file, "objects that would run code when they are read") from error
        raise _damaged(file, error) from error
    except Exception as error:  # damaged archives surface as RuntimeError, EOFError, KeyError, ...
        raise _damaged(file, error) from error
    if not isinstance(content, dict):
        raise _refused(file, f"a {type(content).__name__}")
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not torch.is_tensor(value)]
    if others:
        raise _refused(file, some(others))
    return dict(content)


def _is_zip(file: Path) -> bool:
    """Whether it is PyTorch's present format; only this one can stay on disk until a tensor is used."""
    with file.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def _refused(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is refused: besides plain tensors it holds {what}. Convert it to safetensors where you trust it."
    )


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is damaged or cut short ({first_line(error).split('. ')[0]}): download it again.")
