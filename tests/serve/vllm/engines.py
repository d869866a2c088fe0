"""Engines of vLLM on the CPU in this process, tiny checkpoints for them, and what this package itself answers."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.model import llava_folder, qwen_vl_folder

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs here, so that its memory can be looked at
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
WIDTH, HEADS = 64, 2  # vLLM's attention for CPUs knows no heads narrower than 32
SIZES = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": 1}
BLOCK, CACHE = 32, 256 << 20


@contextmanager
def engine(folder: Path, **overrides: Any) -> Iterator[Any]:
    """An engine with `hf_overrides`, torn down at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, os.environ.get(name, value))
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory

        llm = LLM(
            str(folder),
            hf_overrides=overrides,
            dtype="float32",
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=8,
            block_size=BLOCK,
            kv_cache_memory_bytes=CACHE,
            limit_mm_per_prompt={"image": 3},
            disable_log_stats=True,
        )
        try:
            yield llm
        finally:
            del llm
            gc.collect()
            cleanup_dist_env_and_memory()


def ask(llm: Any, requests: list[tuple[list[int], list[Any]]], n_new: int, **more: Any) -> list[Any]:
    """Answer requests (token ids with one placeholder per image, images) at once, greedily; in their order."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": ids, "multi_modal_data": {"image": images}} for ids, images in requests]
    sampling = SamplingParams(temperature=0, max_tokens=n_new, **more)
    return llm.generate(prompts, sampling, use_tqdm=False)


def scheduler(llm: Any) -> Any:
    """The scheduler of an engine that runs in this process."""
    return llm.llm_engine.engine_core.engine_core.scheduler


@contextmanager
def blocks_used(llm: Any) -> Iterator[list[int]]:
    """Collects, step by step, how many blocks of the cache are taken."""
    core, found = scheduler(llm), []
    pool, schedule = core.kv_cache_manager.block_pool, core.schedule
    free = pool.get_num_free_blocks()

    def spying(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        found.append(free - pool.get_num_free_blocks())
        return output

    core.schedule = spying
    try:
        yield found
    finally:
        core.schedule = schedule


def write_llava(folder: Path, *, tiled: bool = False) -> Path:
    """A tiny LLaVA-1.5 or LLaVA-NeXT with the files of a converted checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llava_folder, "TEXT", {**llava_folder.TEXT, **SIZES})
        llava_folder.write_checkpoint(folder, tiled=tiled)
    kind = "LlavaNext" if tiled else "Llava"
    if tiled:
        preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
        preprocessor |= {"image_processor_type": f"{kind}ImageProcessor"}
        preprocessor |= {"image_grid_pinpoints": llava_folder.PINPOINTS}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    processor = {"processor_class": f"{kind}Processor", "patch_size": llava_folder.PATCH, "image_token": "<image>"}
    processor |= {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def write_qwen2_vl(folder: Path) -> Path:
    """A tiny Qwen2-VL laid out as on the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qwen_vl_folder, "TEXT", {**qwen_vl_folder.TEXT, **SIZES})
        vision = {**qwen_vl_folder.VISION["qwen2_vl"], "hidden_size": WIDTH, "embed_dim": WIDTH}
        patch.setitem(qwen_vl_folder.VISION, "qwen2_vl", vision)
        patch.setattr(qwen_vl_folder, "SECTIONS", [4, 6, 6])
        qwen_vl_folder.write_checkpoint(folder, size={"shortest_edge": 3136, "longest_edge": 12845056})
    return folder
