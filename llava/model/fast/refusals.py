"""What the compiled path cannot do, each with a reason; what is refused here runs as without it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers.generation.configuration_utils import GenerationMode

from llava.model.masks import FULL, layer_type

DECODERS = ("Llama", "Mistral", "Qwen2", "Qwen3", "Qwen2VLText", "Qwen2_5_VLText", "Qwen3VLText")
"""Text models, without `Model` at the end of the class name, that are nothing but embedding, layers and norm."""
KERNELS = ("sdpa", "eager")
DEVICES = ("cpu", "cuda")
KINDS = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
RETURNS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")


def of_model(model: Any, decoder: Any) -> str | None:
    """Return why a model cannot be compiled; None if it can."""
    import torch._dynamo

    name = type(decoder).__name__
    config = decoder.config
    kinds = {layer_type(config, number) for number in range(len(decoder.layers))}
    kernel = getattr(config, "_attn_implementation", None)
    if name.removesuffix("Model") not in DECODERS:
        return f"the layers of {name} cannot be run by themselves"
    if kinds != {FULL}:
        return f"{name} has layers of other kinds than full attention ({', '.join(sorted(kinds - {FULL}))})"
    if kernel not in KERNELS:
        return f"the attention kernel {kernel} cannot be used with static caches: use sdpa"
    if getattr(model, "quantization_method", None) or getattr(model, "is_quantized", False):
        return "quantised weights are not compiled"
    if len({parameter.device for parameter in model.parameters()}) > 1:
        return "the model is spread over several devices"
    if model.device.type not in DEVICES:
        return f"device {model.device.type} is not one of {', '.join(DEVICES)}"
    if any(module._forward_hooks or module._forward_pre_hooks for module in decoder.modules()):
        return "hooks on the decoder would be passed over"
    if not torch._dynamo.is_dynamo_supported():
        return "torch.compile does not work with this Python"
    return None


def of_call(model: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return why a call of `generate()` cannot be compiled; None if it can."""
    config = copy.deepcopy(arguments.get("generation_config") or model.generation_config)
    config.update(**{name: value for name, value in arguments.items() if hasattr(config, name)})
    assistant = arguments.get("assistant_model")
    returned = [name for name in RETURNS if getattr(config, name, None)]
    if arguments.get("custom_generate") is not None:
        return "custom_generate is at work"
    if arguments.get("past_key_values") is not None:
        return "generation goes on on a cache that was given"
    if config.get_generation_mode(assistant) not in KINDS:
        return "only greedy decoding and sampling are compiled"
    if returned:
        return f"{', '.join(returned)} was asked for"
    if config.use_cache is False or config.cache_implementation is not None:
        return "another cache was asked for"
    if (config.num_return_sequences or 1) > 1:
        return "several sequences a prompt were asked for"
    if config.prefill_chunk_size is not None or config.stop_strings or arguments.get("synced_gpus"):
        return "prefill_chunk_size, stop_strings or synced_gpus was asked for"
    return None
