"""Checkpoint folders: find or fetch them, and read their settings."""

import json
import os
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError, first_line

EMBEDDED = Path(__file__).parents[1] / "assets" / "llava-nano"
FILES_TO_FETCH = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "*.jinja")
PICKLED_WEIGHTS = ("*.bin",)  # fetched only where there is nothing better


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
        folder = Path(snapshot_download(name, allow_patterns=list(FILES_TO_FETCH)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*FILES_TO_FETCH, *PICKLED_WEIGHTS]))
        return folder
    except Exception as error:  # the hub client raises a dozen kinds, for no network, no such name, no permission
        raise CheckpointError(
            f"'{name}' is not a folder here and could not be fetched from the Hugging Face hub ({first_line(error)}): "
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


def some(keys: list[str], limit: int = 8) -> str:
    """Return the first keys of a list, and how many more there are."""
    rest = len(keys) - limit
    return ", ".join(keys[:limit]) + (f" and {rest} more" if rest > 0 else "")
