"""Plug-in for vLLM: LLaVA-1.5, LLaVA-NeXT and Qwen2-VL served with fewer visual tokens per image.

A method of this package chooses among the projected tokens of each image, before the language model; the prompt vLLM
schedules is that much shorter, and everything else (continuous batching, tensor parallelism, the OpenAI API) is vLLM's.

    python -m llava.serve.vllm --model-path llava-hf/llava-1.5-7b-hf --method dart_features --keep 128

or, in Python,

    LLM("llava-hf/llava-1.5-7b-hf", hf_overrides=llava.serve.vllm.overrides("llava", keep=128))

vLLM finds the plug-in through its entry points; models are served as ever unless these settings ask for it.
"""

from llava.serve.vllm.settings import overrides

__all__ = ["overrides", "register"]

CLASSES = {
    "ReducedLlavaForConditionalGeneration": "llava.serve.vllm.llava:ReducedLlava",
    "ReducedLlavaNextForConditionalGeneration": "llava.serve.vllm.llava:ReducedLlavaNext",
    "ReducedQwen2VLForConditionalGeneration": "llava.serve.vllm.qwen2_vl:ReducedQwen2VL",
}
"""Architecture -> where its class is; vLLM imports it only when a model asks for it."""


def register() -> None:
    """Tell vLLM the architectures; vLLM calls this in each of its processes (`vllm.general_plugins`)."""
    from vllm import ModelRegistry

    for architecture, place in CLASSES.items():
        ModelRegistry.register_model(architecture, place)
