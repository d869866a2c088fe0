"""What determines the predictions of a run, its hash (`run_id`), and where and with what it was made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Embedded, Question

PACKAGE = Path(__file__).resolve().parents[1]
CODE_THAT_DECIDES = ("reduction", "model")
"""Parts of the package whose source enters the `run_id`."""
SAMPLED_VALUES = 1 << 16
"""Values of one weight tensor that enter the weights digest; smaller tensors enter whole."""
SHOWN_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow")


def run_id(configuration: Mapping[str, Any]) -> str:
    """Return the hash (16 hex digits) of a configuration; independent of the order of its keys."""
    canonical = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def method_record(method: Any) -> dict[str, Any]:
    """Return {"name", "options"} of a method: all options of its dataclass, defaults included."""
    fields = [field for field in dataclasses.fields(method) if not field.metadata.get("private")]
    return {"name": method.name, "options": {field.name: jsonable(getattr(method, field.name)) for field in fields}}


def jsonable(value: Any) -> Any:
    """Return a value that JSON can hold and that reads back equal."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = [jsonable(one) for one in value]
        return sorted(inner, key=str) if isinstance(value, (set, frozenset)) else inner
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def questions_digest(questions: Sequence[Question]) -> str:
    """Return a hash of ids, prompts and images (name and size on disk) of the questions."""
    digest = hashlib.sha256()
    sizes: dict[Path | Embedded, int] = {}
    for question in questions:
        if question.image not in sizes:
            sizes[question.image] = _size(question.image)
        digest.update(
            json.dumps([question.id, question.prompt, question.image_name, sizes[question.image]]).encode() + b"\n"
        )
    return digest.hexdigest()[:16]


def _size(image: Path | Embedded) -> int:
    if isinstance(image, Embedded):
        return len(image.data)
    return image.stat().st_size if image.exists() else -1


def weights_digest(model: Any) -> str:
    """Return a hash of the weights in memory: names, shapes, and values (evenly sampled in large tensors)."""
    import torch

    digest = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            if tensor.is_meta:  # moved off the devices by device_map; its values are not at hand
                continue
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)].float().cpu().contiguous()
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a hash of the package's sources that decide predictions, so that an edit starts a new run."""
    return files_digest(path for part in CODE_THAT_DECIDES for path in sorted((PACKAGE / part).rglob("*.py")))


def files_digest(paths: Iterable[Path]) -> str:
    """Return a hash of the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def configuration_of(
    *,
    benchmark: str,
    questions: Sequence[Question],
    model: Any,
    model_name: str,
    weights: str,
    method: Any,
    method_file: str | None,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Any]:
    """Return everything that determines the predictions (batch size does not, and is left out)."""
    record = method_record(method)
    if method_file is not None:
        record["file"] = files_digest([Path(method_file.rpartition(".py")[0] + ".py")])
    return {
        "benchmark": benchmark,
        "questions": {"count": len(questions), "digest": questions_digest(questions)},
        "model": {"name": model_name, "weights": weights},
        "method": record,
        "max_new_tokens": max_new_tokens,
        "seed": None if method.name == "none" else seed,  # greedy decoding draws nothing
        "decoding": "greedy",
        **hardware(model),
        "versions": versions("torch", "transformers"),
        "code": code_digest(),
    }


def hardware(model: Any) -> dict[str, str]:
    """Return device, dtype and attention kernel a model runs with."""
    device = model.device
    name = device.type
    if device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    kernel = getattr(model.config, "_attn_implementation", None)
    dtype = str(model.dtype).removeprefix("torch.")
    for bits in ("8bit", "4bit"):
        if getattr(model, f"is_loaded_in_{bits}", False):
            dtype = f"{bits}, {dtype}"
    return {"device": name, "dtype": dtype, "attention": str(kernel)}


def versions(*packages: str) -> dict[str, str]:
    """Return the version of this package and of others (those that are installed)."""
    import llava

    found = {"llava": llava.__version__}
    for package in packages or SHOWN_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def surroundings() -> dict[str, Any]:
    """Return versions, Python, system and, when the package stands in a git checkout, its commit."""
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "system": f"{platform.system()} {platform.machine()}",
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of the checkout the package stands in (`+` when files differ from it), or None."""
    # Installed into somebody else's checkout, the package is not one of its files.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
