"""The CLIP vision tower that an original LLaVA checkpoint names: where it lies, its sizes, its image statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from llava.errors import CheckpointError
from llava.model.checkpoints import find_folder, read_json
from llava.model.weights import read_weights

PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
    }
}
"""Sizes of towers that LLaVA was published with: a checkpoint that holds such a tower's weights needs no other file."""
STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Those all published CLIP models were trained with."""
PREFIX = "vision_model."


@dataclass(frozen=True)
class Tower:
    """A CLIP vision tower.

    Args:
        name: as the checkpoint says it.
        config: its vision configuration.
        folder: where its files are; None when only the published sizes are known.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the vision side, `vision_model.*`.

        Raises:
            CheckpointError: the files are missing or damaged, or hold no such weights.
        """
        weights = read_weights(self.folder) if self.folder is not None else {}
        chosen = {key: value for key, value in weights.items() if key.startswith(PREFIX)}
        if not chosen:
            raise CheckpointError(f"{self.folder or self.name} holds no weights of a CLIP vision tower ({PREFIX}*).")
        return {key: value for key, value in chosen.items() if not key.endswith(".position_ids")}

    def statistics(self) -> dict[str, Any]:
        """Return `image_mean` and `image_std`, for channel values in [0, 1]."""
        file = None if self.folder is None else self.folder / "preprocessor_config.json"
        return STATISTICS if file is None or not file.is_file() else read_json(file)


def find_tower(folder: Path, config: Mapping[str, Any], *, with_weights: bool) -> Tower:
    """Return the tower that a checkpoint names.

    Looked for, in this order: the path it names (absolute, or from the checkpoint's folder), a folder of that name
    beside the checkpoint, the hub.

    Args:
        folder: the checkpoint.
        config: its config.json; `mm_vision_tower` is a path or a hub name.
        with_weights: whether the tower's own weights are needed; without, the published sizes do for a known name.

    Raises:
        CheckpointError: it is nowhere, or it is no CLIP model.
    """
    name = config.get("mm_vision_tower")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder}: config.json does not say which vision tower it needs (mm_vision_tower).")
    near = (Path(name).expanduser(), folder / name, folder / Path(name).name, folder.parent / Path(name).name)
    place = next((path for path in near if (path / "config.json").is_file()), None)
    if place is None and name in PUBLISHED and not with_weights:
        return Tower(name, PUBLISHED[name])
    if place is None:
        try:
            place = find_folder(name)
        except CheckpointError as error:
            raise CheckpointError(
                f"{folder} needs the vision tower {name}: {error} A folder {Path(name).name} beside the checkpoint is "
                "found by itself."
            ) from error
    return Tower(name, _vision_config(place), place)


def _vision_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind == "clip":
        from transformers import CLIPConfig

        vision: Any = CLIPConfig.from_dict(config).vision_config
        return vision.to_dict()
    if kind != "clip_vision_model":
        raise CheckpointError(f"{folder} has model_type {kind!r}: the vision tower must be a CLIP model.")
    return config
