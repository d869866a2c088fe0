"""Which visual tokens vLLM is to keep: the operator's settings, read and judged before anything is served.

They stand in vLLM's own `hf_overrides`, under `visual_tokens`, and are read from there alone: the config.json of a
checkpoint cannot set them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.errors import ConfigurationError
from llava.reduction import registry
from llava.reduction.base import ORIGINAL, Reduction
from llava.reduction.chain import Chain
from llava.reduction.image import BeforeLLM, Encoder
from llava.reduction.none import NoReduction

KEY = "visual_tokens"
EXAMPLE = '{"visual_tokens": {"method": "dart_features", "keep": 128}}'
ARCHITECTURES = {
    "llava": "ReducedLlavaForConditionalGeneration",
    "llava_next": "ReducedLlavaNextForConditionalGeneration",
    "qwen2_vl": "ReducedQwen2VLForConditionalGeneration",
}
"""`model_type` of a checkpoint -> the architecture by which vLLM finds the class that reduces its visual tokens."""
SEVERAL_AXES = ("qwen2_vl",)
"""Those whose visual tokens have a time, a row and a column."""
ONE_TILE = ("llava",)
"""Those with a CLIP tower that sees every image as one tile."""
PROBE = 2**12
"""Visual tokens of an image that a method is asked about to learn whether it knows how many it will keep."""


def overrides(model_type: str, method: str = "dart_features", **options: Any) -> dict[str, Any]:
    """Return the `hf_overrides` with which vLLM serves a checkpoint with fewer visual tokens.

    Args:
        model_type: what the checkpoint's config.json calls its kind: llava, llava_next or qwen2_vl.
        method: a method before the language model; see `python -m llava.methods`.
        options: of the method, e.g. `keep=128`; `method_file` is the path of a file with a method of your own.

    Raises:
        ConfigurationError: everything that cannot be served, together.
    """
    problems = []
    if model_type not in ARCHITECTURES:
        problems.append(
            f"Checkpoints of kind {model_type!r} cannot be served with fewer visual tokens by vLLM. Kinds that can: "
            f"{', '.join(ARCHITECTURES)}, in transformers' format."
        )
    settings = {"method": method, **options}
    try:
        method_of(settings, model_type)
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return {"architectures": [ARCHITECTURES[model_type]], KEY: settings}


def of_model(model_config: Any) -> Reduction:
    """Return the method that a vLLM `ModelConfig` asks for.

    Raises:
        ConfigurationError: it asks for none, or for one that cannot work in vLLM.
    """
    given = model_config.hf_overrides
    settings = given.get(KEY) if isinstance(given, Mapping) else None
    if settings is None:
        names = ", ".join(ARCHITECTURES.values())
        raise ConfigurationError(
            f"The architectures {names} need to be told which visual tokens to keep: add --hf-overrides '{EXAMPLE}'."
        )
    return method_of(settings, model_config.hf_config.model_type)


def method_of(settings: Any, model_type: str) -> Reduction:
    """Return the method that settings describe.

    Args:
        settings: `{"method": name, option: value, ...}`; "method_file" names a Python file with a method.
        model_type: of the checkpoint.

    Raises:
        ConfigurationError: the settings are malformed, or the method cannot work in vLLM; all reasons together.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("method", ""), str):
        raise ConfigurationError(f"{KEY} has to hold the method and its options, e.g. {EXAMPLE}; it is {settings!r}.")
    options = dict(settings)
    name, file = options.pop("method", ""), options.pop("method_file", None)
    if file is not None:
        name = registry.load_user_file(str(file))
    method = registry.create(name, **options)
    problems = refusals(method, model_type)
    if problems:
        raise ConfigurationError(*problems)
    return method


def refusals(method: Reduction, model_type: str) -> list[str]:
    """Return one sentence per reason why a method cannot work in vLLM; none if it can."""
    name = type(method).name
    instead = f"Methods that vLLM can serve for {model_type}: {', '.join(servable(model_type))}."
    if isinstance(method, Chain):
        return [f"{method.name}: vLLM takes one method, before the language model. {instead}"]
    if isinstance(method, NoReduction):
        return []
    if not isinstance(method, BeforeLLM):
        return [
            f"Method {name!r} acts inside the language model. vLLM gives all its layers the same tokens (one block "
            f"table, one slot mapping), so nothing can be dropped after layer 2 there: use this package's own "
            f"commands for it. {instead}"
        ]
    problems = []
    if isinstance(method, Encoder) or method.resizes:
        problems.append(
            f"Method {name!r} changes what the vision tower computes, which in vLLM is made of vLLM's own blocks. "
            f"{instead}"
        )
    elif method.needs_tiles or (method.tower_layers and model_type not in ONE_TILE):
        problems.append(
            f"Method {name!r} reads the attention of the vision tower, which this plug-in does for LLaVA-1.5 only. "
            f"{instead}"
        )
    if method.n_kept(PROBE) is None:
        problems.append(
            f"Method {name!r} decides by the image how many tokens it keeps; vLLM reserves the prompt's places before "
            f"it has seen the image. {instead}"
        )
    if method.positions == ORIGINAL and model_type not in SEVERAL_AXES:
        problems.append(
            f"positions={ORIGINAL!r}: vLLM numbers the tokens of a {model_type} prompt without gaps. Leave "
            "positions out."
        )
    return problems


def servable(model_type: str) -> list[str]:
    """Names of the methods that vLLM can serve with their default options, asked from the classes."""
    names = []
    for name in registry.names():
        kind = registry.get(name)
        if not issubclass(kind, BeforeLLM) or issubclass(kind, Encoder) or kind.resizes:
            continue
        method = kind()
        reads = bool(method.tower_layers)
        if not method.needs_tiles and not (reads and model_type not in ONE_TILE) and method.n_kept(PROBE) is not None:
            names.append(name)
    return names
