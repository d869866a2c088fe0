"""`python -m llava.serve.vllm`: vLLM's OpenAI server with fewer visual tokens per image.

python -m llava.serve.vllm --model-path llava-hf/llava-1.5-7b-hf --keep 128 -- --port 8000 --tensor-parallel-size 2

What stands after `--` are vLLM's own options.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro

from llava.commandline import MethodOptions, run, say
from llava.errors import CheckpointError, ConfigurationError, MissingData
from llava.model import checkpoints
from llava.reduction.checks import options_of

SERVER = "vllm.entrypoints.openai.api_server"
OWN = ("--hf-overrides", "--model")
"""Options of vLLM that this command writes itself."""


@dataclass(frozen=True)
class ServeConfig:
    """Serve a model through vLLM; options of vLLM itself follow after `--`."""

    model_path: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder or hub name of a checkpoint in transformers' format; by default the embedded llava-nano."""
    reduction: MethodOptions = field(default_factory=lambda: MethodOptions(method="dart_features"))
    show: bool = False
    """Only print the command that would be run."""


def arguments(config: ServeConfig, others: Sequence[str]) -> list[str]:
    """Return the words for vLLM's server.

    Args:
        config: what to serve.
        others: options of vLLM's own.

    Raises:
        ConfigurationError: what vLLM cannot serve, or an option given twice.
        CheckpointError: no such checkpoint, or one in another format.
    """
    problems = [
        f"{name} is made from --model-path and the method's options: leave it out after `--`."
        for name in OWN
        for word in others
        if word.partition("=")[0].replace("_", "-") == name
    ]
    folder = checkpoints.find_folder(config.model_path)
    described = checkpoints.read_json(folder / "config.json")
    if "architectures" not in described or "mm_vision_tower" in described:
        raise CheckpointError(
            f"{folder} is not in transformers' format, which vLLM needs: take the converted checkpoint (llava-hf/...)."
        )
    try:
        wanted = asked(config.reduction, str(described.get("model_type")))
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    words = ["--model", str(folder if config.model_path is None else config.model_path)]
    words += ["--hf-overrides", json.dumps(wanted)]
    if config.model_path is None:
        words += ["--served-model-name", folder.name]
    if not _has_template(folder) and not any(word.startswith("--chat-template") for word in others):
        words += _template_words(folder, described)
    return [*words, *others]


def asked(reduction: MethodOptions, model_type: str) -> dict[str, Any]:
    """Return the `hf_overrides` for what the command line says of the method.

    Raises:
        ConfigurationError: what vLLM cannot serve.
    """
    from llava.serve.vllm.settings import overrides

    method = reduction.build(model_type)
    options = {field.name: getattr(method, field.name) for field in options_of(type(method))}
    if reduction.method_file is not None:
        options["method_file"] = reduction.method_file
    return overrides(model_type, type(method).name, **options)


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    files = [folder / name for name in ("tokenizer_config.json", "processor_config.json")]
    return any(checkpoints.read_json(file).get("chat_template") for file in files if file.is_file())


def _template_words(folder: Path, described: dict[str, Any]) -> list[str]:
    from llava.model.conversation import template_of
    from llava.model.tokenizers import load_tokenizer
    from llava.serve.vllm.chat import chat_template

    decoder = (described.get("text_config") or {}).get("model_type", "llama")
    template = template_of(load_tokenizer(folder).get_vocab(), decoder)
    return ["--chat-template", chat_template(template), "--chat-template-content-format", "string"]


def serve(config: ServeConfig, others: Sequence[str]) -> None:
    command = [sys.executable, "-m", SERVER, *arguments(config, others)]
    if config.show:
        import shlex

        say(shlex.join(command))
        return
    if find_spec("vllm") is None:
        raise MissingData(
            "vLLM is not installed here: type `pip install 'llava-dart[vllm]'` in an environment of its own (it brings "
            "its own versions of torch and transformers)."
        )
    os.execv(sys.executable, command)


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    others = words[split + 1 :]
    return run(lambda config: serve(config, others), ServeConfig, words[:split], prog="python -m llava.serve.vllm")


if __name__ == "__main__":
    sys.exit(main())
