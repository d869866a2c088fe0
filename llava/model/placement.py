"""Where and how a model is loaded: device, dtype, attention kernel, quantisation; all mistakes are told together."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers.utils import is_flash_attn_2_available

from llava.errors import ConfigurationError

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
ATTENTION = ("sdpa", "eager", "flash_attention_2")
QUANTIZATIONS = ("8bit", "4bit")
NOT_QUANTIZED = (
    "lm_head",
    *("vision_tower", "vision_model", "visual", "vpm"),
    *("multi_modal_projector", "connector", "resampler"),
)
"""Parts that keep their precision, whatever a family calls them: language head, vision tower, projector."""

Quantization = Literal["8bit", "4bit"]


def quantization(load_8bit: bool, load_4bit: bool) -> Quantization | None:
    """Return what the two flags of the command lines ask for.

    Raises:
        ConfigurationError: both.
    """
    if load_8bit and load_4bit:
        raise ConfigurationError("--load-8bit and --load-4bit exclude each other: give one of them.")
    return "8bit" if load_8bit else "4bit" if load_4bit else None


def placement(
    device: Any, dtype: Any, attention: str | None, quantize: str | None, device_map: Any = None
) -> tuple[torch.device | None, dict[str, Any]]:
    """Return the device and the keyword arguments of `from_pretrained`, or raise with every mistake found.

    Args:
        device: default CUDA if there is one, else the CPU; "auto" is `device_map="auto"`.
        dtype: name, torch.dtype, or None: as stored on CUDA, float32 on the CPU; float16 where the rest is quantised.
        attention: name of a kernel; None leaves the choice to transformers.
        quantize: "8bit", "4bit" or None.
        device_map: "auto" spreads the layers over all GPUs and, where they do not fit, the CPU; a dictionary of
            module name -> device is handed on. With one, the device may not be given.

    Raises:
        ConfigurationError: lists everything that cannot be.
    """
    problems: list[str] = []
    options: dict[str, Any] = {}
    if device_map is not None and device is not None:
        problems.append(f"device {device!r} and device_map {device_map!r} exclude each other: give one of them.")
    if str(device) == "auto":
        device, device_map = None, "auto"
    if device_map is not None and device_map != "auto" and not isinstance(device_map, dict):
        problems.append(f"Unknown device_map {device_map!r}: use auto, or a dictionary of module name to device.")
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device is None else device)
    except (RuntimeError, TypeError):
        problems.append(f"Unknown device '{device}': use cpu, cuda, cuda:1, mps or auto.")
        chosen = torch.device("cpu")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        problems.append(f"Device {chosen} was asked for, but this PyTorch sees no CUDA device: use cpu.")
    if isinstance(dtype, str) and dtype not in DTYPES:
        problems.append(f"Unknown dtype '{dtype}': use float32, float16, bfloat16 or auto.")
    elif dtype is None:
        options["dtype"] = torch.float16 if quantize else torch.float32 if chosen.type == "cpu" else "auto"
    else:
        options["dtype"] = DTYPES.get(dtype, dtype)
    problems += _attention_problems(attention, chosen)
    if attention is not None:
        options["attn_implementation"] = attention
    if quantize is not None:
        problems += _quantization_problems(quantize)
    if problems:
        raise ConfigurationError(*problems)
    if device_map is not None or quantize is not None or chosen.type != "cpu":
        options["device_map"] = {"": chosen} if device_map is None else device_map
    if quantize is not None:
        options["quantization_config"] = _bitsandbytes(quantize, options["dtype"])
    return chosen, options


def _bitsandbytes(quantize: str, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    compute = dtype if isinstance(dtype, torch.dtype) else torch.float16
    return BitsAndBytesConfig(
        load_in_8bit=quantize == "8bit",
        load_in_4bit=quantize == "4bit",
        llm_int8_skip_modules=[f".*{part}" for part in NOT_QUANTIZED],  # regular expressions over whole names
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )


def _attention_problems(attention: str | None, device: torch.device) -> list[str]:
    if attention is None or attention in ("sdpa", "eager"):
        return []
    if attention not in ATTENTION:
        return [f"Unknown attention kernel '{attention}': use {', '.join(ATTENTION)}."]
    if device.type != "cuda" or not is_flash_attn_2_available():
        return ["flash_attention_2 needs a CUDA device and the flash-attn package (extra `flash`): use sdpa."]
    return []


def _quantization_problems(quantize: str) -> list[str]:
    if quantize not in QUANTIZATIONS:
        return [f"Unknown quantisation '{quantize}': use 8bit or 4bit."]
    if find_spec("bitsandbytes") is None:
        return [
            f"Loading in {quantize} needs the bitsandbytes package: pip install bitsandbytes (extra `quant`), or load "
            "in bfloat16."
        ]
    return []
