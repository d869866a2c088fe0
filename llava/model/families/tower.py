"""What acting before the language model has to know about a family: its vision tower, projector, tiles and positions.

Touches, by default: of the body `vision_tower` (or `vision_model`), `multi_modal_projector`, `get_image_features`,
`get_video_features`; of the tower `encoder.layers` and `embeddings`; of the configuration `vision_feature_layer` and
`vision_feature_select_strategy`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

IMAGE, VIDEO = "image", "video"
PIXELS = {IMAGE: "pixel_values", VIDEO: "pixel_values_videos"}


@dataclass(frozen=True)
class Tiling:
    """How one image was cut into tiles.

    Args:
        n_tiles: tiles, the one that shows the whole image first.
        grid: (rows, columns) of the crops, row-major; None without crops.
        size: (height, width) of the original image in pixels.
        newline: (D,) embedding that ends a row of tokens; None where there is none.
        source: (L,) which token (tile * N + number) every visual token of the prompt is, -1 at newlines; None: all of
            them in order.
    """

    n_tiles: int = 1
    grid: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    newline: Tensor | None = None
    source: Tensor | None = None


class TowerAdapter:
    """The vision side of a family; the defaults fit CLIP and SigLIP towers with a projector (LLaVA)."""

    tiled: ClassVar[bool] = False
    """Whether images are cut into a tile that shows the whole and crops."""
    token_by_token: ClassVar[bool] = False
    """Whether every token the tower makes of a patch becomes one token of the language model, through the projector."""
    images_together: ClassVar[str] = ""
    """Why the features of an image depend on what else is in the batch or the prompt, in words; empty if they do
    not."""
    packing: ClassVar[str] = ""
    """Name of the body's function that makes one row of the tiles (skipped when tokens were merged in the tower)."""

    def body(self, model: Any) -> Any:
        """The module that turns token ids and images into hidden states; see `Family`."""
        raise NotImplementedError

    def tower(self, model: Any, kind: str = IMAGE) -> Any:
        """The module that encodes pixels; None if the model has none that can be looked into."""
        body = self.body(model)
        names = (f"{kind}_tower", "vision_tower", "vision_model")
        return next((getattr(body, name) for name in names if isinstance(getattr(body, name, None), nn.Module)), None)

    def tower_blocks(self, model: Any, kind: str = IMAGE) -> Sequence[Any]:
        """The tower's blocks in order, each with `self_attn`; empty if they cannot be read."""
        tower = self.tower(model, kind)
        tower = getattr(tower, "vision_model", tower)
        blocks = getattr(getattr(tower, "encoder", None), "layers", ())
        return blocks if all(hasattr(block, "self_attn") for block in blocks) else ()

    def has_cls(self, model: Any, kind: str = IMAGE) -> bool:
        """Whether the tower has a [CLS] token at position 0 that does not reach the language model."""
        tower = self.tower(model, kind)
        tower = getattr(tower, "vision_model", tower)
        dropped = getattr(model.config, "vision_feature_select_strategy", "default") == "default"
        return dropped and hasattr(getattr(tower, "embeddings", None), "class_embedding")

    def feature_block(self, model: Any, kind: str = IMAGE) -> int | None:
        """Block (0-based) whose output feeds the projector; None if several are joined, or it is not known."""
        number = getattr(model.config, "vision_feature_layer", None)
        blocks = len(self.tower_blocks(model, kind))
        if not isinstance(number, int) or not blocks:
            return None
        block = number - 1 if number > 0 else number + blocks  # hidden state 0 is the input of block 0
        return block if 0 <= block < blocks else None

    def tile_side(self, model: Any, kind: str = IMAGE) -> tuple[int, int] | None:
        """(h, w) tokens of a tile; None if not known or not the same for all."""
        config = getattr(self.tower(model, kind), "config", None)
        size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
        return (size // patch, size // patch) if isinstance(size, int) and isinstance(patch, int) else None

    def projector(self, model: Any) -> nn.Module | None:
        """The module from tower width to the language model's width, token by token; None if there is none."""
        return getattr(self.body(model), "multi_modal_projector", None)

    def vision_inputs(self, model: Any) -> tuple[str, ...]:
        """Names of the arguments that describe images and videos, not wanted any more once they are encoded."""
        names = set(PIXELS.values())
        for kind in PIXELS:
            encode = getattr(self.body(model), f"get_{kind}_features", None)
            names.update(inspect.signature(encode).parameters if encode else ())
        return tuple(names - {"kwargs", "input_ids", "attention_mask", "position_ids", "return_dict"})

    def encode(self, model: Any, inputs: dict[str, Any], kind: str = IMAGE) -> Any:
        """Run the tower and the projector; the result's `pooler_output` holds the features of all images."""
        encode = getattr(self.body(model), f"get_{kind}_features")
        taken = set(inspect.signature(encode).parameters)
        given = {name: value for name, value in inputs.items() if name in taken and value is not None}
        given = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in given.items()}
        return encode(**given, return_dict=True)

    def features(self, output: Any) -> list[Tensor]:
        """The features of every image, (L, D) each, from what `encode` returned."""
        pooled = output.pooler_output
        parts = pooled if isinstance(pooled, (list, tuple)) else list(pooled)
        return [part for given in parts for part in (given if given.ndim == 3 else [given])]

    def with_features(self, output: Any, features: list[Tensor], rows: list[Tensor] | None) -> Any:
        """Put other features, (K, D) per image, into what `encode` returned, in the form the body expects.

        Args:
            output: what `encode` returned.
            features: the new ones.
            rows: (K,) which of the old rows they are, per image; None if they are others.
        """
        as_tensor = torch.is_tensor(output.pooler_output)
        output.pooler_output = torch.cat(features)[:, None] if as_tensor else features
        return output

    def one_image(self, inputs: dict[str, Any], number: int, kind: str = IMAGE) -> dict[str, Any]:
        """The vision inputs of one image of the batch."""
        names = (PIXELS[kind], "image_sizes")
        sliced = {name: inputs[name][number : number + 1] for name in names if inputs.get(name) is not None}
        return {**inputs, **sliced}

    def n_images(self, inputs: dict[str, Any], kind: str = IMAGE) -> int:
        """Images (videos) in the vision inputs of a batch."""
        return len(inputs[PIXELS[kind]])

    def tilings(self, model: Any, inputs: dict[str, Any], kind: str = IMAGE) -> list[Tiling] | None:
        """How every image of the batch was cut into tiles; None: every image is one tile."""
        return None

    def positions(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Positions of a prompt that came without, as a plain forward numbers them: (B or 1, N), or (k, B, N)."""
        return torch.arange(inputs["input_ids"].shape[1], device=inputs["input_ids"].device)[None]
