"""Checkpoint folders: find them, and tell what is wrong with their files before any layer is built."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from llava.errors import CheckpointError

EMBEDDED = Path(__file__).parents[1] / "assets" / "llava-nano"
FILES_TO_FETCH = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "*.jinja")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def find_folder(path: str | os.PathLike | None) -> Path:
    """Return the folder of a checkpoint: the embedded model (None), a local folder, or a fetched hub name.

    Raises:
        CheckpointError: nothing there, or the hub cannot be reached.
    """
    if path is None:
        if not (EMBEDDED / "config.json").is_file():
            raise CheckpointError(f"The embedded model is not in this installation ({EMBEDDED}): give a model path.")
        return EMBEDDED
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    name = str(path)
    if folder.is_file():
        raise CheckpointError(f"{name} is a file: give the folder that holds config.json and the weights.")
    if not _is_hub_name(name):
        raise CheckpointError(f"There is no folder {name}: give a checkpoint's folder or a hub name (owner/name).")
    return _fetch(name)


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith((".", "~"))


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES_TO_FETCH)))
    except Exception as error:  # the hub client raises a dozen kinds, for no network, no such name, no permission
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"'{name}' is not a folder here and could not be fetched from the Hugging Face hub ({reason}): "
            "check the name and the network, or download it elsewhere and give its folder."
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: absent, unreadable, or not a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file.parent} is not a checkpoint: it has no {file.name}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} does not hold a JSON object.")
    return content


def image_processor_config(folder: Path) -> dict[str, Any]:
    """Return the image processor's settings, which newer checkpoints keep inside processor_config.json.

    Raises:
        CheckpointError: neither file is there, or one is damaged.
    """
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    return read_json(folder / "processor_config.json").get("image_processor", {})


def check_weight_files(folder: Path) -> None:
    """Check that every weight file is there, whole, and holds what the index says.

    Raises:
        CheckpointError: names the file and, where it is about keys, the keys.
    """
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{folder / INDEX} has no weight_map.")
        names = sorted(set(weight_map.values()))
    elif (folder / WEIGHTS).is_file():
        weight_map, names = None, [WEIGHTS]
    else:
        others = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f" It has {', '.join(others)}, which this version does not read." if others else ""
        raise CheckpointError(f"{folder} has no weights: {WEIGHTS} or {INDEX} with its shards is needed.{found}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks the weight files {', '.join(absent)}: the download is not complete.")
    holder: dict[str, str] = {}
    for name in names:
        for key in _keys(folder / name):
            if key in holder:
                raise CheckpointError(f"{folder}: weight {key} is both in {holder[key]} and in {name}.")
            holder[key] = name
    if weight_map is not None:
        wrong = [key for key in weight_map if holder.get(key) != weight_map[key]]
        extra = [key for key in holder if key not in weight_map]
        if wrong or extra:
            raise CheckpointError(
                f"{folder}: the shards do not hold what {INDEX} says"
                + (f"; not where they should be: {some(wrong)}" if wrong else "")
                + (f"; not in the index: {some(extra)}" if extra else "")
                + "."
            )


def _keys(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or cut short ({error}): download it again.") from error


def some(keys: list[str], limit: int = 8) -> str:
    """Return the first keys of a list, and how many more there are."""
    rest = len(keys) - limit
    return ", ".join(keys[:limit]) + (f" and {rest} more" if rest > 0 else "")
