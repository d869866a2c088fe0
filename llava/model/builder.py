"""Load a checkpoint: the family's model class with every weight from the file, and its processor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from llava.errors import CheckpointError, LlavaError, first_line
from llava.model import checkpoints
from llava.model.families import family_for
from llava.model.families.base import Family, Original
from llava.model.placement import Quantization, placement
from llava.model.processing import Processor


def load(
    path: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: Quantization | None = None,
    device_map: str | dict[str, Any] | None = None,
) -> tuple[Any, Processor]:
    """Return a model in eval mode and its processor.

    Args:
        path: folder or hub name of a checkpoint of any supported family (`llava.model.families`), in transformers' or
            in the original format; None loads the embedded llava-nano.
        device: default CUDA if there is one, else the CPU.
        dtype: "float32", "float16", "bfloat16", or "auto" for what the checkpoint is stored in; default "auto" on CUDA,
            float32 on the CPU.
        attn_implementation: "sdpa" (default), "eager" or "flash_attention_2".
        quantize: "8bit" or "4bit" for the linear layers (needs bitsandbytes and CUDA).
        device_map: "auto" spreads the layers over all GPUs; instead of `device`, which takes "auto" too.

    Raises:
        CheckpointError: no such checkpoint, an unsupported kind, damaged files, or weights that do not fit the
            architecture one to one; missing, unexpected and mis-shaped weights are named.
        ConfigurationError: an impossible device, dtype, kernel or quantisation; all mistakes together.
    """
    place, options = placement(device, dtype, attn_implementation, quantize, device_map)
    folder = checkpoints.find_folder(path)
    config = checkpoints.read_json(folder / "config.json")
    family = family_for(folder, config)
    with _quiet_transformers():
        tokenizer = family.tokenizer(folder, config)
        original = family.original(folder, config, tokenizer)
        if original is None:
            checkpoints.check_weight_files(folder)
        model = _load_model(folder, family, original, options)
        if "device_map" not in options:
            model = model.to(place)
        processor = family.processor(folder, config, model, tokenizer)
    _complete_generation_config(model, tokenizer)
    return model.eval(), processor


def _load_model(folder: Path, family: Family, original: Original | None, options: dict[str, Any]) -> Any:
    if original is None:
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(folder), "use_safetensors": True}
    else:
        weights = dict(original.weights)
        source = {"pretrained_model_name_or_path": None, "config": original.config, "state_dict": weights}
    try:
        model, info = family.model_class().from_pretrained(
            **source,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported below, with the other kinds
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except torch.OutOfMemoryError as error:
        raise CheckpointError(f"{folder} does not fit into the memory of the device: {first_line(error)}") from error
    except LlavaError:
        raise
    except Exception as error:  # transformers raises many kinds for a config it cannot build
        raise CheckpointError(f"{folder} cannot be loaded: {first_line(error)}") from error
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


def _complete_generation_config(model: Any, tokenizer: Any) -> None:
    """Give `generate()` its stop and padding ids where the folder has no generation_config.json."""
    generation = model.generation_config
    if generation.eos_token_id is None:
        generation.eos_token_id = tokenizer.eos_token_id
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


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
