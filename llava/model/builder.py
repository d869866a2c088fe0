"""Load a checkpoint: the unmodified transformers model with every weight from the file, and its processor."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration
from transformers.utils import is_flash_attn_2_available
from transformers.utils import logging as transformers_logging

from llava.errors import CheckpointError, ConfigurationError
from llava.model import checkpoints
from llava.model.processing import Processor

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
CLASS_TOKEN_TOWERS = ("clip_vision_model",)


def load(
    path: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: Literal["8bit", "4bit"] | None = None,
) -> tuple[LlavaForConditionalGeneration, Processor]:
    """Return a model in eval mode and its processor.

    Args:
        path: folder or hub name in the layout of `llava-hf/llava-1.5-7b-hf`; None loads the embedded llava-nano.
        device: default CUDA if there is one, else the CPU; "auto" spreads the layers over all GPUs.
        dtype: "float32", "float16", "bfloat16", or "auto" for what the checkpoint is stored in; default "auto" on CUDA,
            float32 on the CPU.
        attn_implementation: "sdpa" (default), "eager" or "flash_attention_2".
        quantize: load the linear layers in 8 or 4 bits (needs bitsandbytes and CUDA).

    Raises:
        CheckpointError: no such checkpoint, an unsupported kind, damaged files, or weights that do not fit the
            architecture one to one; missing, unexpected and mis-shaped weights are named.
        ConfigurationError: an impossible device, dtype, kernel or quantisation; all mistakes together.
    """
    device, options = _placement(device, dtype, attn_implementation, quantize)
    folder = checkpoints.find_folder(path)
    checkpoints.check_model_type(folder)
    checkpoints.check_tokenizer_files(folder)
    checkpoints.check_weight_files(folder)
    with _quiet_transformers():
        model = _load_model(folder, options)
        tokenizer = _load_tokenizer(folder)
    if "device_map" not in options:
        model = model.to(device)
    processor = build_processor(folder, model.config, tokenizer, device=model.device)
    _complete_generation_config(model, tokenizer)
    return model.eval(), processor


def build_processor(folder: Path, config: Any, tokenizer: Any, device: str | torch.device = "cpu") -> Processor:
    """Return the processor of a checkpoint, its sizes read from the model's and the preprocessor's configs.

    Raises:
        CheckpointError: the preprocessor's mean and deviation are not there, or tokenizer and model disagree.
    """
    vision = config.vision_config
    image = _image_config(folder)
    # The feature strategy "default" drops the tower's first token, which is the class token where there is one.
    n_visual = (vision.image_size // vision.patch_size) ** 2
    n_visual += (vision.model_type in CLASS_TOKEN_TOWERS) - (config.vision_feature_select_strategy == "default")
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows}.")
    try:
        mean, std = image["image_mean"], image["image_std"]
    except KeyError as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
    return Processor(
        tokenizer,
        image_size=vision.image_size,
        image_mean=mean,
        image_std=std,
        n_visual=n_visual,
        image_token_id=config.image_token_id,
        device=device,
    )


def _image_config(folder: Path) -> dict[str, Any]:
    """Return the image processor's settings, which newer checkpoints keep inside processor_config.json."""
    if (folder / "preprocessor_config.json").is_file():
        return checkpoints.read_json(folder / "preprocessor_config.json")
    return checkpoints.read_json(folder / "processor_config.json").get("image_processor", {})


def _placement(
    device: Any, dtype: Any, attention: str | None, quantize: str | None
) -> tuple[torch.device | None, dict[str, Any]]:
    """Return the device and the keyword arguments of `from_pretrained`, or raise with every mistake found."""
    problems = []
    options: dict[str, Any] = {}
    spread = str(device) == "auto"
    try:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(default if device is None or spread else device)
    except (RuntimeError, TypeError):
        problems.append(f"Unknown device '{device}': use cpu, cuda, cuda:1, mps or auto.")
        device = torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        problems.append(f"Device {device} was asked for, but this PyTorch sees no CUDA device: use cpu.")
    if isinstance(dtype, str) and dtype not in DTYPES:
        problems.append(f"Unknown dtype '{dtype}': use float32, float16, bfloat16 or auto.")
    elif dtype is None:
        options["dtype"] = torch.float32 if device.type == "cpu" else "auto"
    else:
        options["dtype"] = DTYPES.get(dtype, dtype)
    problems += _attention_problems(attention, device)
    if attention is not None:
        options["attn_implementation"] = attention
    if quantize is not None:
        problems += _quantization_problems(quantize, device)
    if problems:
        raise ConfigurationError(*problems)
    if spread or device.type != "cpu":
        options["device_map"] = "auto" if spread else {"": device}
    if quantize is not None:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=quantize == "8bit", load_in_4bit=quantize == "4bit", bnb_4bit_compute_dtype=torch.float16
        )
    return device, options


def _attention_problems(attention: str | None, device: torch.device) -> list[str]:
    if attention is None or attention in ("sdpa", "eager"):
        return []
    if attention not in ATTENTION:
        return [f"Unknown attention kernel '{attention}': use {', '.join(ATTENTION)}."]
    if device.type != "cuda" or not is_flash_attn_2_available():
        return ["flash_attention_2 needs a CUDA device and the flash-attn package (extra `flash`): use sdpa."]
    return []


def _quantization_problems(quantize: str, device: torch.device) -> list[str]:
    if quantize not in ("8bit", "4bit"):
        return [f"Unknown quantisation '{quantize}': use 8bit or 4bit."]
    from importlib.util import find_spec

    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        return [f"Loading in {quantize} needs a CUDA device and the bitsandbytes package (extra `quant`)."]
    return []


def _load_model(folder: Path, options: dict[str, Any]) -> LlavaForConditionalGeneration:
    try:
        model, info = LlavaForConditionalGeneration.from_pretrained(
            str(folder),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported below, with the other kinds
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except torch.OutOfMemoryError as error:
        raise CheckpointError(f"{folder} does not fit into the memory of the device: {_first_line(error)}") from error
    except Exception as error:  # transformers raises many kinds for a config it cannot build
        raise CheckpointError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    problems = []
    if info["missing_keys"]:
        problems.append(f"missing: {checkpoints.some(sorted(info['missing_keys']))}")
    if info["unexpected_keys"]:
        problems.append(f"unexpected: {checkpoints.some(sorted(info['unexpected_keys']))}")
    if info["mismatched_keys"]:
        shapes = [f"{key} {tuple(found)} instead of {tuple(wanted)}" for key, found, wanted in info["mismatched_keys"]]
        problems.append(f"wrong shape: {checkpoints.some(sorted(shapes))}")
    if info["error_msgs"]:
        problems.append(checkpoints.some([str(message) for message in info["error_msgs"]]))
    if problems:
        raise CheckpointError(f"The weights in {folder} do not fit its config.json; {'; '.join(problems)}.")
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged files surface as many kinds
        raise CheckpointError(f"The tokenizer in {folder} cannot be loaded: {_first_line(error)}") from error


def _complete_generation_config(model: LlavaForConditionalGeneration, tokenizer: Any) -> None:
    """Give `generate()` its stop and padding ids where the folder has no generation_config.json."""
    generation = model.generation_config
    if generation.eos_token_id is None:
        generation.eos_token_id = tokenizer.eos_token_id
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' load report and progress bar off the screen: what they would say is raised as an error."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
