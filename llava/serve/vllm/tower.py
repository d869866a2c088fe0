"""Reading blocks of a CLIP vision tower of vLLM, for methods that score with the attention of [CLS].

Touches, of vLLM 0.32: `CLIPVisionTransformer.encoder.layers`, their `self_attn.qkv_proj` and `self_attn.num_heads`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from llava.errors import UnsupportedModel
from llava.model.towerguards import refuse_blocks
from llava.reduction.image import BeforeLLM, TowerLayer


class TowerTap:
    """Keeps what the blocks that a method reads computed in the last pass of the tower.

    Args:
        method: its `tower_layers` are read, and the block that feeds the projector.
        tower: a `CLIPVisionModel` of vLLM, built up to the block that feeds the projector.
        config: the model's configuration, `LlavaConfig`.

    Raises:
        UnsupportedModel: another tower, a block that is not built, or attention heads spread over several devices.
    """

    def __init__(self, method: BeforeLLM, tower: Any, config: Any):
        vision = config.vision_config
        self.n_blocks, chosen = vision.num_hidden_layers, config.vision_feature_layer
        if vision.model_type != "clip_vision_model" or not isinstance(chosen, int):
            raise UnsupportedModel(
                f"Method {method.name!r} scores with the [CLS] token of a CLIP tower; this checkpoint has a tower of "
                f"kind {vision.model_type!r}, or joins several of its layers. Take dart_features or divprune."
            )
        self.feature_block = chosen - 1 if chosen > 0 else chosen + self.n_blocks  # hidden state 0 is block 0's input
        refuse_blocks(method, method.tower_layers, self.n_blocks)
        wanted = {number for number in (*method.tower_layers, self.feature_block) if number is not None}
        numbers = {number % self.n_blocks for number in wanted}
        blocks = tower.vision_model.encoder.layers
        if max(numbers) >= len(blocks):
            raise UnsupportedModel(
                f"Method {method.name!r} reads block {max(numbers)} of the vision tower; vLLM builds only the first "
                f"{len(blocks)}, up to the one that feeds the projector."
            )
        attention = blocks[0].self_attn
        if attention.num_heads_per_partition != attention.num_heads:
            raise UnsupportedModel(
                f"Method {method.name!r} averages the attention heads of the vision tower, which tensor parallelism "
                "spreads over devices. Serve on one device per replica, or take dart_features or divprune."
            )
        self.projected: dict[int, Tensor] = {}
        self.layers: dict[int, TowerLayer] = {}
        for number in numbers:
            blocks[number].self_attn.qkv_proj.register_forward_hook(partial(self._after_projection, number))
            blocks[number].register_forward_hook(partial(self._after_block, number, attention))

    def _after_projection(self, number: int, module: Any, inputs: Any, output: Any) -> None:
        self.projected[number] = output[0]

    def _after_block(self, number: int, attention: Any, module: Any, inputs: Any, output: Tensor) -> None:
        query, key, _ = (
            part.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)
            for part in self.projected.pop(number).chunk(3, dim=-1)
        )
        self.layers[number] = TowerLayer(number, query, key, attention.scale, True, output)

    def take(self, image: int) -> dict[int, TowerLayer]:
        """What was read of one image of the last pass."""
        return {number: layer.of(slice(image, image + 1)) for number, layer in self.layers.items()}

    def forget(self) -> None:
        """Let go of the last pass."""
        self.layers.clear()
