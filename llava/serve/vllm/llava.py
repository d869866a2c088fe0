"""LLaVA-1.5 and LLaVA-NeXT in vLLM with fewer visual tokens per image.

Touches, of vLLM 0.32: what `prompts` touches, the models' `_process_image_input`, and their `hf_to_vllm_mapper`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import LlavaConfig
from vllm.model_executor.models import llava as upstream
from vllm.model_executor.models import llava_next as upstream_next
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from llava.errors import UnsupportedModel
from llava.reduction.image import BeforeLLM, ImageState, Tiles
from llava.serve.vllm import settings
from llava.serve.vllm.choosing import choose, state
from llava.serve.vllm.prompts import FewerPlaces, Squared
from llava.serve.vllm.tower import TowerTap

# Checkpoints saved by newer versions of transformers leave `vision_model` out of the tower's names.
UNNESTED = re.compile(r"vision_tower\.(?!vision_model\.)")
NEWER_NAMES = WeightsMapper(orig_to_new_regex={UNNESTED: "vision_tower.vision_model."})


class Info(upstream.LlavaProcessingInfo):
    """LLaVA-1.5's facts; a Pixtral tower, whose tokens stand in lines of their own, is refused."""

    def get_hf_config(self) -> Any:
        config = self.ctx.get_hf_config(LlavaConfig)
        if config.vision_config.model_type == "pixtral":
            raise UnsupportedModel(
                "This checkpoint has a Pixtral vision tower, whose tokens are mixed with tokens that end lines. Serve "
                "it without visual_tokens, or use a LLaVA-1.5 with a CLIP or SigLIP tower."
            )
        return config


class Processor(FewerPlaces, Squared, upstream.LlavaMultiModalProcessor):
    """Prompts of LLaVA-1.5."""


class NextProcessor(FewerPlaces, upstream_next.LlavaNextMultiModalProcessor):
    """Prompts of LLaVA-NeXT."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=upstream.LlavaDummyInputsBuilder)
class ReducedLlava(upstream.LlavaForConditionalGeneration):
    """Of every image, only the tokens that the method chose reach the language model."""

    hf_to_vllm_mapper = upstream.LlavaForConditionalGeneration.hf_to_vllm_mapper | NEWER_NAMES
    supports_tower_connector_lora = False  # adapters count a tower's tokens from those that go on

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.reduction = settings.of_model(vllm_config.model_config)
        vision = vllm_config.model_config.hf_config.vision_config
        per_side = vision.image_size // vision.patch_size
        self.side = (per_side, per_side)
        self.tap = None
        if isinstance(self.reduction, BeforeLLM) and self.reduction.tower_layers:
            self.tap = TowerTap(self.reduction, self.vision_tower, self.config)

    def _process_image_input(self, image_input: Any) -> list[torch.Tensor]:
        images = super()._process_image_input(image_input)
        chosen = [choose(self.reduction, self._state(number, image)).values for number, image in enumerate(images)]
        if self.tap is not None:
            self.tap.forget()
        return chosen

    def _state(self, number: int, features: torch.Tensor) -> ImageState:
        if self.tap is None or not self.tap.layers:
            return state(features, self.side)
        layers, feeding = self.tap.take(number), self.tap.feature_block
        return ImageState(
            features,
            Tiles(features[None], layers[feeding].output, self.side),
            layers,
            project=self.multi_modal_projector,
            feature_layer=feeding,
            n_layers=self.tap.n_blocks,
        )


@MULTIMODAL_REGISTRY.register_processor(
    NextProcessor, info=upstream_next.LlavaNextProcessingInfo, dummy_inputs=upstream.LlavaDummyInputsBuilder
)
class ReducedLlavaNext(upstream_next.LlavaNextForConditionalGeneration):
    """The same for LLaVA-NeXT; the newlines that end the rows of tokens compete like other tokens."""

    hf_to_vllm_mapper = upstream_next.LlavaNextForConditionalGeneration.hf_to_vllm_mapper | NEWER_NAMES
    supports_tower_connector_lora = False

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.reduction = settings.of_model(vllm_config.model_config)

    def _process_image_input(self, image_input: Any) -> list[torch.Tensor]:
        return [choose(self.reduction, state(image)).values for image in super()._process_image_input(image_input)]
