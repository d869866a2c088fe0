"""Options that the measurements share, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from llava.bench import sizes
from llava.commandline import did_you_mean, folder_problems, too_small
from llava.errors import ConfigurationError, LlavaError

if TYPE_CHECKING:
    from llava.reduction.base import Reduction

EMBEDDED, SMALL, POPE = "embedded", "small", "pope"
TOKENS, TEXT = 2880, 60
NONE = "none"
Keep = int | float


@dataclass(frozen=True)
class ModelOptions:
    """Whose speed is measured: random weights of a given size, or a checkpoint."""

    shape: str | None = None
    """Random weights of this size, no download: small (default), llava-1.5-7b, llava-1.5-13b, llava-next-7b,
    qwen2-vl-7b."""
    model_path: str | None = None
    """Instead of a shape: folder or hub name of a checkpoint, or `embedded` for the llava-nano of this package."""
    layers: int | None = None
    """Build only so many decoder layers of the shape; selection is still given as a share of the whole prefill."""
    tower: str | None = None
    """Vision tower of the shape, tiny or clip-l; default: clip-l for LLaVA-NeXT, else tiny: the decoder is all that
    counts."""
    dtype: str = "auto"
    """float32, bfloat16, float16; auto: float32 on CPU; on CUDA bfloat16 for a shape, else as the checkpoint is."""
    device: str = "auto"
    """cpu, cuda or cuda:1; auto: a GPU if there is one."""

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.model_path is None

    @property
    def shape_name(self) -> str:
        """The shape, where the weights are random."""
        return self.shape or SMALL

    @property
    def name(self) -> str:
        """What the screen calls it."""
        return self.shape_name if self.model_path is None else self.model_path

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        found = sizes.problems(self.shape_name, self.layers, self.tower)
        if not self.is_random:
            given = [f"--{name}" for name in ("shape", "layers", "tower") if getattr(self, name) is not None]
            if given:
                found.append(
                    f"{' and '.join(given)} and --model-path exclude each other: give random weights or a path."
                )
        return found + placement_problems(self.device, self.dtype)


@dataclass(frozen=True)
class PromptOptions:
    """What the model is given."""

    tokens: int | None = None
    """Visual tokens of a shape's image (the nearest number that it can make is used); default 2880."""
    text: int | None = None
    """Text tokens around a shape's image; default 60."""
    benchmark: str | None = None
    """Benchmark whose questions a checkpoint is asked; default pope."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""
    batch: int = 1
    """Prompts at a time."""
    attn_implementation: str | None = None
    """sdpa (default), eager or flash_attention_2."""

    def problems(self, model: ModelOptions) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        found = too_small(self, tokens=4, text=4, batch=1)
        found += kind_problems(self, model, of_shapes=("tokens", "text"), of_checkpoints=("benchmark", "data"))
        found += benchmark_problems(self.benchmark, self.data)
        return found + placement_problems(model.device, "auto", self.attn_implementation)


@dataclass(frozen=True)
class MethodChoice:
    """What is measured against the unpruned model."""

    methods: str = "dart,random"
    """Methods, separated by commas, or `all`; the unpruned model is always measured."""
    keep: Annotated[Keep, tyro.conf.arg(metavar="COUNT|FRACTION")] = 320
    """Visual tokens to keep: a count, or a fraction in (0, 1]."""
    layer: int = 2
    """Decoder layer whose input is cut, for methods that cut once inside the language model."""

    def problems(self, visual: Sequence[int] = ()) -> list[str]:
        """Return everything that is wrong; `visual`: numbers of visual tokens that images will have."""
        return keep_problems([self.keep], visual) + method_problems(self.methods, self.keep, self.layer)

    def build(self) -> dict[str, Reduction]:
        """Return label -> method, the unpruned one first.

        Raises:
            ConfigurationError: all mistakes of all methods together.
        """
        return build_methods(self.methods, self.keep, self.layer)


@dataclass(frozen=True)
class Repeats:
    """How often, and where the result goes."""

    repeats: int = 7
    """Counted rounds."""
    warmup: int = 2
    """Rounds before counting."""
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        """Return everything that is wrong."""
        return too_small(self, repeats=1, warmup=0) + output_problems(self.output)


@dataclass(frozen=True)
class Comparison:
    """Methods and the unpruned model on the same prompt."""

    model: ModelOptions = field(default_factory=ModelOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    choice: MethodChoice = field(default_factory=MethodChoice)

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        found = self.model.problems() + self.prompt.problems(self.model)
        return list(dict.fromkeys(found + self.choice.problems(self.visual_tokens)))

    @property
    def visual_tokens(self) -> list[int]:
        """The visual tokens of a shape's image; nothing where they are not known yet."""
        if not self.model.is_random or self.model.shape_name not in sizes.SHAPES:
            return []
        return [sizes.visual_tokens(sizes.SHAPES[self.model.shape_name], max(1, self.prompt.tokens or TOKENS))]


@dataclass(frozen=True)
class TimedComparison(Comparison):
    """The same, timed in interleaved rounds."""

    times: Repeats = field(default_factory=Repeats)

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        return list(dict.fromkeys(super().problems() + self.times.problems()))


def kind_problems(
    options: Any, model: ModelOptions, of_shapes: Sequence[str], of_checkpoints: Sequence[str]
) -> list[str]:
    """Return a sentence for every option that belongs to the other kind of model."""
    wrong, hint = (
        (of_checkpoints, "needs --model-path: random weights answer no questions")
        if model.is_random
        else (of_shapes, "is for a --shape: a checkpoint gets the images and questions of --benchmark")
    )
    return [f"--{name.replace('_', '-')} {hint}." for name in wrong if getattr(options, name) is not None]


def benchmark_problems(name: str | None, data: str | None) -> list[str]:
    """Return what is wrong with the words for questions."""
    from llava.eval import scoring

    return (scoring.benchmark_problems((name,)) if name is not None else []) + scoring.data_problems(data)


def placement_problems(device: str, dtype: str, attention: str | None = None) -> list[str]:
    """Return what is wrong with the words for device, dtype and kernel."""
    from llava.model.placement import placement

    if device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        return [f"Device {device!r} cannot be measured here: use cpu, cuda, cuda:1 or auto."]
    try:
        placement(None if device == "auto" else device, dtype, attention, None)
    except ConfigurationError as error:
        return error.problems
    return []


def keep_problems(keeps: Sequence[Any], visual: Sequence[int] = ()) -> list[str]:
    """Return a sentence for every budget that is none, or that is not smaller than an image."""
    found = []
    for keep in keeps:
        if isinstance(keep, str) or not (keep >= 1 if isinstance(keep, int) else 0 < keep <= 1):
            found.append(f"--keep {keep}: give a count of at least 1 (128) or a fraction in (0, 1].")
            continue
        small = sorted({tokens for tokens in visual if isinstance(keep, int) and keep >= tokens})
        if small:
            images = " and ".join(map(str, small))
            found.append(
                f"--keep {keep} is not below the {images} visual tokens of the image: give less, or a fraction."
            )
    return found


def method_names(words: str) -> list[str]:
    """Return the methods in `dart,random` or `all`, each once, without the unpruned one."""
    from llava.reduction import registry

    names = registry.names() if words == "all" else [part.strip() for part in words.split(",")]
    return [name for name in dict.fromkeys(names) if name and name != NONE]


def method_problems(words: str, keep: Any, layer: int) -> list[str]:
    """Return all mistakes of all methods; a budget that is wrong by itself is not judged again."""
    try:
        build_methods(words, 1.0 if keep_problems([keep]) else keep, layer)
    except ConfigurationError as error:
        return list(dict.fromkeys(error.problems))
    return []


def build_methods(words: str, keep: Any, layer: int) -> dict[str, Reduction]:
    """Return label -> method, the unpruned one first.

    Args:
        words: names with commas, or `all`; `a+b` is one after the other.
        keep: visual tokens to keep, for each of them.
        layer: where those cut that cut once inside the language model.

    Raises:
        ConfigurationError: all mistakes of all methods together.
    """
    from llava.reduction import registry
    from llava.reduction.base import InLLM

    built, problems = {NONE: registry.create(NONE)}, []
    for name in method_names(words):
        try:
            kind = registry.get(name.rpartition(registry.CHAINED)[2])
            cuts_once = issubclass(kind, InLLM) and "layer" in {field.name for field in fields(kind)}
            built[name] = registry.create(name, keep=keep, **({"layer": layer} if cuts_once else {}))
        except ConfigurationError as error:
            problems += error.problems
        except LlavaError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError(*problems)
    return built


def output_problems(output: Path | None) -> list[str]:
    """Return what is wrong with the file for the result."""
    if output is None:
        return []
    found = [] if output.suffix == ".json" else [f"--output {output}: the result is a JSON file, give a name in .json."]
    found += [f"--output {output} is a folder: give a file in it."] if output.is_dir() else []
    return found + folder_problems("--output", output.parent)


def listed(words: str, flag: str, kinds: tuple[type, ...] = (int,)) -> tuple[list[Any], list[str]]:
    """Return the numbers in `576,1024`, and what is wrong with them.

    Args:
        words: what was typed.
        flag: the option's name, for the sentence.
        kinds: what a part may be; the first that fits.
    """
    found: list[Any] = []
    wrong: list[str] = []
    for part in filter(None, (part.strip() for part in words.split(","))):
        for kind in kinds:
            try:
                found.append(kind(part))
                break
            except ValueError:
                continue
        else:
            wrong.append(part)
    expected = "numbers" if float in kinds else "whole numbers"
    problems = (
        [f"--{flag} {words}: {', '.join(map(repr, wrong))} cannot be used; give {expected} with commas."]
        if wrong
        else []
    )
    if not found and not wrong:
        problems.append(f"--{flag} is empty: give {expected} with commas.")
    return list(dict.fromkeys(found)), problems


def known(words: Sequence[str], flag: str, allowed: Sequence[str]) -> list[str]:
    """Return a sentence for every word that is not allowed."""
    return [
        f"--{flag} {word!r} is not known.{did_you_mean(word, allowed)} Known: {', '.join(allowed)}."
        for word in words
        if word not in allowed
    ]
