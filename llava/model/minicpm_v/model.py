"""MiniCPM-V 2.6: SigLIP tower, resampler and Qwen2, under the original weight names; no code from a checkpoint is run.

Source: the model card and official code (`modeling_minicpmv`) of openbmb/MiniCPM-V-2_6. Differences: the prompt's ids
go in, not only its embeddings; visual tokens are found by their id, in one call for the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, Qwen2ForCausalLM, SiglipVisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from llava.errors import BadInput
from llava.model.minicpm_v.config import MiniCPMVConfig
from llava.model.minicpm_v.resampler import Resampler
from llava.model.minicpm_v.tower import VisionTower

IMAGE_INPUTS = ("pixel_values", "tgt_sizes", "n_views")


class MiniCPMV(PreTrainedModel, GenerationMixin):
    """The whole model, with `generate()` of transformers.

    Args:
        config: see `MiniCPMVConfig`.
    """

    config_class = MiniCPMVConfig
    base_model_prefix = ""
    input_modalities = ["image", "text"]
    _no_split_modules = ["Qwen2DecoderLayer", "SiglipEncoderLayer", "PatchEmbeddings", "Resampler"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: MiniCPMVConfig):
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(config.text_config)
        self.vpm = VisionTower(_tower_config(config))
        self.resampler = Resampler(config.query_num, config.text_config.hidden_size, config.vision_config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Resampler):
            nn.init.normal_(module.query, std=self.config.text_config.initializer_range)
            nn.init.normal_(module.proj, std=module.proj.shape[0] ** -0.5)

    def get_input_embeddings(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.llm.lm_head

    def get_image_features(
        self, pixel_values: Tensor, tgt_sizes: Tensor, n_views: Tensor, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Encode images.

        Args:
            pixel_values: (V, 3, P, L * P) the views of all images as strips of patches, see `VisionTower`.
            tgt_sizes: (V, 2) rows and columns of patches of each view.
            n_views: (I,) views of each image.

        Returns:
            `pooler_output`: one (views * query_num, D) tensor per image; `last_hidden_state`: (V, query_num, D).
        """
        grids = [(rows, columns) for rows, columns in tgt_sizes.tolist()]
        weight = self.vpm.embeddings.patch_embedding.weight
        strips = pixel_values.to(weight.device, weight.dtype)
        at_once = self.config.vision_batch_size
        tokens = torch.cat(
            [
                self._encode(strips[start : start + at_once], grids[start : start + at_once])
                for start in range(0, len(grids), at_once)
            ]
        )
        per_image = tokens.flatten(0, 1).split([n * tokens.shape[1] for n in n_views.tolist()])
        features: Any = list(per_image)  # the form in which transformers 5.23 hands features of several images on
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=features)

    def _encode(self, strips: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """(V, 3, P, L * P) -> (V, query_num, D)."""
        lengths = torch.tensor([rows * columns for rows, columns in grids], device=strips.device)
        longest = max(rows * columns for rows, columns in grids)
        real = torch.arange(longest, device=strips.device) < lengths[:, None]
        patches = self.vpm(strips[..., : longest * strips.shape[2]], grids, real)
        return self.resampler(patches, grids, real.to(patches.device))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tgt_sizes: Tensor | None = None,
        n_views: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, vocabulary) and the cache.

        Args:
            input_ids, attention_mask: (B, T) prompts, every view as a run of `query_num` placeholder ids.
            pixel_values, tgt_sizes, n_views: the images, see `get_image_features`; or
            mm_encoder_outputs: {"image": what `get_image_features` returned}.
            position_ids, past_key_values, inputs_embeds, labels, logits_to_keep, kwargs: as of `Qwen2ForCausalLM`.

        Raises:
            BadInput: placeholders and visual tokens are not as many.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        encoded = (mm_encoder_outputs or {}).get("image")
        if encoded is None and pixel_values is not None:
            if tgt_sizes is None or n_views is None:
                raise BadInput("pixel_values= needs tgt_sizes= and n_views=, as the checkpoint's processor makes them.")
            encoded = self.get_image_features(pixel_values, tgt_sizes, n_views)
        if encoded is not None:
            tokens = torch.cat(list(encoded.pooler_output)).to(inputs_embeds)
            inputs_embeds = self._with_images(input_ids, inputs_embeds, tokens)
        return self.llm(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _with_images(self, input_ids: Tensor | None, embeds: Tensor, tokens: Tensor) -> Tensor:
        """Put visual tokens (n, D) where the placeholders are."""
        placeholder = self.config.image_token_id
        if placeholder is None:
            raise BadInput(
                "config.image_token_id is not set: set it to the tokenizer's id of <unk>, as llava.load does."
            )
        if input_ids is None:
            vector = self.get_input_embeddings()(torch.tensor(placeholder, device=embeds.device))
            places = (embeds == vector).all(-1)
        else:
            places = input_ids == placeholder
        if int(places.sum()) != len(tokens):
            raise BadInput(
                f"The prompts have {int(places.sum())} places for visual tokens but the images make {len(tokens)}: "
                "prepare prompts and images together with the checkpoint's processor."
            )
        return embeds.masked_scatter(places[..., None].to(embeds.device), tokens)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As usual; images go in with the prompt only, unless there is no cache that remembers them."""
        kwargs["is_first_iteration"] = is_first_iteration
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs = {name: value for name, value in inputs.items() if name not in IMAGE_INPUTS}
        return inputs


def _tower_config(config: MiniCPMVConfig) -> SiglipVisionConfig:
    vision = config.vision_config
    if config.drop_vision_last_layer:
        vision = SiglipVisionConfig(**{**vision.to_dict(), "num_hidden_layers": vision.num_hidden_layers - 1})
        vision._attn_implementation = config.vision_config._attn_implementation
    return vision
