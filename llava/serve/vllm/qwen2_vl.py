"""Qwen2-VL in vLLM with fewer visual tokens per image, which keep their original times, rows and columns.

Touches, of vLLM 0.32: what `prompts` touches; of the model `_process_image_input`, `_process_video_input`,
`iter_mm_grid_thw`, `get_mrope_input_positions` and `get_encoder_cudagraph_config`; the interface
`SupportsMultiModalPruning`, by which a runner asks for positions after it has encoded images. Videos stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm.model_executor.models import qwen2_vl as upstream
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from llava.errors import UnsupportedModel
from llava.serve.vllm import cpu, mrope, settings
from llava.serve.vllm.choosing import choose, n_places, state
from llava.serve.vllm.prompts import IMAGE, FewerPlaces

SWITCH = 2**-20
"""Any rate above 0 makes runners ask for positions; Qwen2-VL itself reads no rate, so no video loses a frame."""


class Info(upstream.Qwen2VLProcessingInfo):
    """Qwen2-VL's facts, with the number of tokens an image really has in a prompt."""

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        most = super().get_mm_max_tokens_per_item(seq_len, mm_counts)
        return {**most, IMAGE: n_places(settings.of_model(self.ctx.model_config), most[IMAGE])}


class Processor(FewerPlaces, upstream.Qwen2VLMultiModalProcessor):
    """Prompts of Qwen2-VL."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=upstream.Qwen2VLDummyInputsBuilder)
class ReducedQwen2VL(upstream.Qwen2VLForConditionalGeneration):
    """Of every image, only the tokens that the method chose reach the language model."""

    supports_multimodal_pruning = True
    supported_video_pruning_methods = ("evs", "vidcom2")  # none is used; whichever is set is only the switch
    supports_tower_connector_lora = False  # adapters count a tower's tokens from those that go on

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.reduction = settings.of_model(vllm_config.model_config)
        if not self.multimodal_config.video_pruning_rate:
            self.multimodal_config.video_pruning_rate = SWITCH
        cpu.ask_for_positions()

    # ------------------------------------------------------------------------------------------------ the vision tower

    def _process_image_input(self, image_input: Any) -> tuple[torch.Tensor, ...]:
        images = super()._process_image_input(image_input)
        return tuple(
            self._chosen(features, grid) for features, grid in zip(images, self._grids(image_input, IMAGE), strict=True)
        )

    def _process_video_input(self, video_input: Any) -> tuple[torch.Tensor, ...]:
        videos = super()._process_video_input(video_input)
        grids = self._grids(video_input, "video")
        return tuple(mrope.packed(features, None, grid) for features, grid in zip(videos, grids, strict=True))

    def _chosen(self, features: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        kept = choose(self.reduction, state(features))
        if kept.indices is None and len(kept.values) < len(features):
            raise UnsupportedModel(
                f"Method {self.reduction.name!r} merges tokens, which have no place of their own then; visual tokens "
                "of Qwen2-VL have a time, a row and a column. Use a method that only chooses tokens."
            )
        return mrope.packed(kept.values, kept.indices, grid)

    def _grids(self, given: Any, kind: str) -> list[tuple[int, int, int]]:
        merge = self.config.vision_config.spatial_merge_size
        return [(t, h // merge, w // merge) for t, h, w in given[f"{kind}_grid_thw"].tolist()]

    def get_encoder_cudagraph_config(self) -> Any:
        config = super().get_encoder_cudagraph_config()
        config.modalities = []  # a graph of the tower would skip the choice
        return config

    # ------------------------------------------------------------------------------------------------------- positions

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        grids = self.iter_mm_grid_thw(mm_features)
        lengths = [one.mm_position.length for one in sorted(mm_features, key=lambda one: one.mm_position.offset)]
        media = [
            mrope.Media(offset, length, (frames, rows, columns), step)
            for (offset, frames, rows, columns, step), length in zip(grids, lengths, strict=True)
        ]
        return mrope.prompt_positions(len(input_tokens), media)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | torch.Tensor,
        multimodal_embeddings: Sequence[torch.Tensor],
        mrope_positions: torch.Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor, int]:
        """Put the rows and columns that came with the features into the prompt's positions."""
        pairs = [mrope.unpacked(item) for item in multimodal_embeddings]
        with gpu_sync_allowed():
            positions = mrope.with_places(
                mrope_positions,
                torch.as_tensor(input_ids),
                num_computed_tokens,
                [places for _, places in pairs],
                self.config.image_token_id,
                self.config.video_token_id,
            )
            delta = int(positions.max()) + 1 - positions.shape[1]
        return [features for features, _ in pairs], positions, delta
