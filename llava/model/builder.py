"""Load a checkpoint: the family's model class with every weight from the file, and its processor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from llava.errors import CheckpointError, LlavaError, first_line
from llava.model import checkpoints
from llava.model.families import family_for
from llava.model.families.base import Family, Original
from llava.model.placement import Quantization, placement
from llava.model.processing import Processor
from llava.model.weights import check_weights, find_weights, read_weights


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
            float32 on the CPU, float16 when quantised.
        attn_implementation: "sdpa" (default), "eager" or "flash_attention_2".
        quantize: "8bit" or "4bit" for the linear layers of the language model (needs bitsandbytes).
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
        model = _load_model(folder, family, original, options)
        if "device_map" not in options:
            model = model.to(place)
        processor = family.processor(folder, config, model, tokenizer)
    _complete_generation_config(model, folder, processor)
    return model.eval(), processor


def _load_model(folder: Path, family: Family, original: Original | None, options: dict[str, Any]) -> Any:
    try:
        source = _source(folder, family, original)
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
    named = original.original_name if original is not None else str
    problems = []
    for what in ("missing", "unexpected"):
        if info[f"{what}_keys"]:
            problems.append(f"{what}: {checkpoints.some(sorted(map(named, info[f'{what}_keys'])))}")
    if info["mismatched_keys"]:
        shapes = [f"{named(key)} {tuple(got)} instead of {tuple(due)}" for key, got, due in info["mismatched_keys"]]
        problems.append(f"wrong shape: {checkpoints.some(sorted(shapes))}")
    if info["error_msgs"]:
        problems.append(checkpoints.some([str(message) for message in info["error_msgs"]]))
    if problems:
        raise CheckpointError(f"The weights in {folder} do not fit its config.json; {'; '.join(problems)}.")
    return model


def _source(folder: Path, family: Family, original: Original | None) -> dict[str, Any]:
    """Return where `from_pretrained` takes configuration and weights from, the files checked."""
    if original is not None:
        return {
            "pretrained_model_name_or_path": None,
            "config": original.config,
            "state_dict": dict(original.weights),
        }
    files = find_weights(folder)
    if files.safe:
        check_weights(files)
        return {"pretrained_model_name_or_path": str(folder), "use_safetensors": True}
    config = family.model_class().config_class.from_pretrained(str(folder), local_files_only=True)
    return {"pretrained_model_name_or_path": None, "config": config, "state_dict": read_weights(folder)}


def _complete_generation_config(model: Any, folder: Path, processor: Processor) -> None:
    """Give `generate()` the folder's settings, its stop and padding ids, and the token that ends a turn as a stop."""
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_dict(checkpoints.read_json(folder / "generation_config.json"))
    generation, tokenizer = model.generation_config, processor.tokenizer
    if generation.eos_token_id is None:
        generation.eos_token_id = tokenizer.eos_token_id
    stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    turn_end = tokenizer.get_vocab().get(processor.template.stop)
    if turn_end is not None and turn_end not in stops:
        generation.eos_token_id = [*(stop for stop in stops if stop is not None), turn_end]
    if generation.pad_token_id is None:
        generation.pad_token_id = processor.pad_id


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
