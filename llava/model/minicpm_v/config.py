"""Configuration of MiniCPM-V 2.6, read from its original flat `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, Qwen2Config, SiglipVisionConfig

TEXT_KEYS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
"""Keys of the original file's top level that belong to its Qwen2 language model."""


class MiniCPMVConfig(PreTrainedConfig):
    """What the three parts need to know.

    Args:
        text_config: the language model's; made from the flat keys (`TEXT_KEYS`) where it is not given.
        vision_config: the tower's; its `image_size` over its `patch_size` is the side of the position table.
        version: of MiniCPM-V.
        query_num: visual tokens of one view (overview or slice).
        drop_vision_last_layer: whether the tower runs without its last layer.
        vision_batch_size: views the tower encodes at once.
        image_token_id: id that stands for visual tokens in a prompt; the original file leaves it to the tokenizer.
    """

    model_type = "minicpmv"
    sub_configs = {"text_config": Qwen2Config, "vision_config": SiglipVisionConfig}

    def __init__(
        self,
        text_config: dict[str, Any] | Qwen2Config | None = None,
        vision_config: dict[str, Any] | SiglipVisionConfig | None = None,
        version: float = 2.6,
        query_num: int = 64,
        drop_vision_last_layer: bool = False,
        vision_batch_size: int = 16,
        image_token_id: int | None = None,
        **kwargs: Any,
    ):
        flat = {key: kwargs.pop(key) for key in TEXT_KEYS if key in kwargs}
        text_config = flat if text_config is None else text_config
        vision_config = {} if vision_config is None else vision_config
        self.text_config = Qwen2Config(**text_config) if isinstance(text_config, dict) else text_config
        self.vision_config = SiglipVisionConfig(**vision_config) if isinstance(vision_config, dict) else vision_config
        self.version = version
        self.query_num = query_num
        self.drop_vision_last_layer = drop_vision_last_layer
        self.vision_batch_size = vision_batch_size
        self.image_token_id = image_token_id
        super().__init__(**{**kwargs, "tie_word_embeddings": self.text_config.tie_word_embeddings})
