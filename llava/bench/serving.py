"""Throughput of vLLM at many concurrent requests, with fewer visual tokens per image and with all of them.

Needs vLLM. One engine per setting, each in a process of its own, asked in turn with the same new images, so that no
cache knows them and drift of the machine meets all settings alike.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.bench import results
from llava.bench.options import NONE, output_problems
from llava.bench.timing import Turns, ratios, spread, take_turns
from llava.commandline import say, too_small, warn
from llava.errors import ConfigurationError, MissingData
from llava.methodoptions import MethodOptions

QUESTION = "Describe the image."


@dataclass(frozen=True)
class Serving:
    """Requests per second through vLLM, with fewer visual tokens and with all."""

    model_path: str | None = None
    """Checkpoint in transformers' format (LLaVA-1.5, LLaVA-NeXT, Qwen2-VL); default: the embedded llava-nano."""
    methods: str = "dart_features"
    """Methods, separated by commas; `none` is always measured."""
    keep: str = "64"
    """Visual tokens left per image, separated by commas."""
    requests: int = 32
    """Requests at once, each with an image of its own."""
    new_tokens: int = 16
    """Tokens of every answer."""
    image_size: int = 336
    """Side of the images in pixels."""
    repeats: int = 3
    """Counted rounds."""
    warmup: int = 1
    """Rounds before counting."""
    dtype: str = "auto"
    """float32, bfloat16, float16 or auto (as stored)."""
    cache_gib: float = 2.0
    """Memory for the keys and values of one engine."""
    eager: bool = True
    """Run without compiling; vLLM compiles by default, which takes minutes to start."""
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        found = too_small(self, requests=1, new_tokens=1, image_size=28, repeats=1, warmup=0)
        found += output_problems(self.output)
        if self.cache_gib <= 0:
            found.append(f"--cache-gib {self.cache_gib}: give the size of the cache in GiB, e.g. 2.")
        return found


def serving(config: Serving) -> None:
    """Measure, show a table and write the result."""
    from importlib.util import find_spec

    from llava.model import checkpoints

    folder = checkpoints.find_folder(config.model_path)
    kind = str(checkpoints.read_json(folder / "config.json").get("model_type"))
    settings = _settings(config, kind)
    if find_spec("vllm") is None:
        raise MissingData("vLLM is not installed here: `bash scripts/vllm_test.sh` makes an environment with it.")
    import torch
    import transformers

    prompt = _prompt(transformers.AutoTokenizer.from_pretrained(folder), kind)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before the engines load the machine themselves
    runs: dict[str, Callable[[], Any]] = {}
    for label, overrides in settings.items():
        warn(f"Starting vLLM for {label} ...")
        runs[label] = partial(_asked, config, _engine(config, folder, overrides), prompt, count())
    # Engines answer when they are done, on whatever device; there is nothing else to wait for.
    turns = take_turns(runs, torch.device("cpu"), config.repeats, config.warmup)
    rows = rows_of(config.requests, turns)
    for line in _table(rows):
        say(line)
    subject = {"model": folder.name, "prompt": QUESTION}
    content = results.content("serving", config, _environment(load), subject, rows, complete=turns.complete)
    results.finish(content, config.output)


def _settings(config: Serving, kind: str) -> dict[str, dict[str, Any]]:
    """Label -> `hf_overrides`; all mistakes of all methods together."""
    from llava.serve.vllm.settings import overrides

    found, problems = {}, []
    for variant in MethodOptions(method=f"{NONE},{config.methods}", keep=config.keep).variants():
        options = {} if variant.method == NONE else {"keep": variant.keep}
        try:
            found[variant.label] = overrides(kind, variant.method, **options)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*dict.fromkeys(problems))
    return found


def _prompt(tokenizer: Any, kind: str) -> list[int]:
    """Token ids of a question with one placeholder for an image."""
    from llava.model.conversation import QWEN2_VL, template_of

    if kind == "qwen2_vl":
        text = QWEN2_VL.render([(f"<|vision_start|><|image_pad|><|vision_end|>{QUESTION}", None)])
    else:
        text = template_of(tokenizer.get_vocab(), "llama").render([(f"<image>\n{QUESTION}", None)])
    return list(tokenizer(text).input_ids)


def _engine(config: Serving, folder: Path, overrides: dict[str, Any]) -> Any:
    from vllm import LLM

    return LLM(
        str(folder),
        hf_overrides=overrides,
        dtype=config.dtype,
        enforce_eager=config.eager,
        max_num_seqs=config.requests,
        kv_cache_memory_bytes=int(config.cache_gib * 2**30),
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        disable_log_stats=True,
    )


def _asked(config: Serving, engine: Any, prompt: list[int], turns: Any) -> list[Any]:
    """Outputs for requests with images that this engine has not seen; every engine sees the same ones in its turns."""
    from vllm import SamplingParams

    draw, side = np.random.default_rng(next(turns)), config.image_size
    requests = [
        # Noise: what a picture shows changes no time.
        {"prompt_token_ids": prompt, "multi_modal_data": {"image": Image.fromarray(pixels)}}
        for pixels in draw.integers(0, 256, (config.requests, side, side, 3), np.uint8)
    ]
    sampling = SamplingParams(temperature=0, max_tokens=config.new_tokens, ignore_eos=True)
    return engine.generate(requests, sampling, use_tqdm=False)


def rows_of(n_requests: int, turns: Turns) -> list[dict[str, Any]]:
    """What was measured of every setting; `turns.values` are vLLM's outputs, the unpruned setting is the reference."""
    rows = []
    for label, seconds in turns.seconds.items():
        outputs, median = turns.values[label][-1], statistics.median(seconds)
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        rows.append(
            {
                "method": label.partition("-")[0],
                "label": label,
                "requests": n_requests,
                "prompt_tokens": statistics.mean(len(output.prompt_token_ids) for output in outputs),
                "new_tokens": made / n_requests,
                "seconds": spread(seconds),
                "requests_per_second": n_requests / median,
                "tokens_per_second": made / median,
                "speedup": ratios(turns.seconds[NONE], seconds).to_dict(),
            }
        )
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    from llava.eval import screen

    header = ["method", "requests", "prompt tokens", "seconds (quartiles)", "requests/s", "tokens/s", "speed-up"]
    cells = [
        [
            row["label"],
            str(row["requests"]),
            f"{row['prompt_tokens']:.0f}",
            f"{row['seconds']['median']:.2f} ({row['seconds']['low']:.2f}-{row['seconds']['high']:.2f})",
            f"{row['requests_per_second']:.2f}",
            f"{row['tokens_per_second']:.1f}",
            f"{row['speedup']['median']:.2f}x",
        ]
        for row in rows
    ]
    return screen.table(header, cells)


def _environment(load: float | None) -> dict[str, Any]:
    from datetime import datetime, timezone

    import torch
    import vllm

    from llava.eval import identity

    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    found = identity.surroundings()
    return {
        **found,
        "versions": {**found["versions"], "vllm": vllm.__version__},
        "device": place,
        "cpu_count": os.cpu_count(),
        "load_average": load,
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
