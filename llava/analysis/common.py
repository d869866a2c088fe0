"""Options that all analyses share, and the model they run on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commandline import folder_problems, say, too_small, warn
from llava.errors import ConfigurationError, UnsupportedModel
from llava.loadoptions import EMBEDDED

if TYPE_CHECKING:
    from llava.analysis.output import Finding
    from llava.methodlists import Choice

NOT_RECORDED = ("output", "device", "dtype", "attn_implementation")


@dataclass(frozen=True)
class Common:
    """What every analysis is asked."""

    methods: str = "dart,random"
    """Methods, separated by commas, or `all`."""
    criteria: str = ""
    """Pivot criteria of DART, separated by commas, or `all`: one DART each instead of the plain one."""
    keep: str = "128"
    """Visual tokens to keep of an image: counts or fractions, separated by commas."""
    layer: int | None = None
    """Decoder layer whose input is cut (0-based), for methods that cut once; default: their own."""
    limit: int = 56
    """Images, one question each."""
    model_path: str | None = None
    """Folder or hub name of a checkpoint; default: the embedded llava-nano."""
    batch_size: int = 8
    """Images at once."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; default: a GPU if there is one."""
    dtype: str | None = None
    """float32, float16 or bfloat16; default: the checkpoint's on a GPU, float32 on the CPU."""
    attn_implementation: str | None = None
    """Attention kernel: sdpa, eager or flash_attention_2."""
    output: Path = Path("results/analysis")
    """Folder for the JSON, CSV, Markdown and pictures."""

    def problems(self) -> list[str]:
        """Everything that is wrong, known before a model is loaded."""
        found = too_small(self, limit=1, batch_size=1, layer=1)
        try:
            self.chosen()
        except ConfigurationError as error:
            found += error.problems
        return found + folder_problems("--output", self.output)

    def chosen(self) -> list[Choice]:
        """The methods with their budgets."""
        from llava.methodlists import choices

        return choices(self.methods, self.criteria, self.keep, self.layer)

    def settings(self) -> dict[str, Any]:
        """The options as plain JSON, without where and on what it ran."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_RECORDED}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


@dataclass(frozen=True)
class FromBenchmark(Common):
    """What analyses on the images of a benchmark are asked."""

    benchmark: str = "pope"
    """Benchmark whose images and questions are taken; `python -m llava.data` lists all."""
    data: str | None = None
    """`full`, `mini`, or a folder in the official layout; default: full when it is there, else mini."""

    def problems(self) -> list[str]:
        from llava.eval import benchmarks

        try:
            benchmarks.get(self.benchmark)
        except ConfigurationError as error:
            return [*super().problems(), *error.problems]
        return super().problems()

    def questions(self, family: str) -> list[Any]:
        """One question for each image, `limit` at most, from images spread evenly over the file.

        Raises:
            MissingData: lists every missing path.
        """
        from llava.eval import benchmarks, data

        located = data.locate(benchmarks.get(self.benchmark), self.data)
        (questions,) = data.load_questions([located], family, None)
        return spread({question.image_name: question for question in reversed(questions)}, self.limit)


def spread(by_image: dict[str, Any], limit: int) -> list[Any]:
    """Return `limit` values, evenly spread over the sorted keys."""
    values = [by_image[name] for name in sorted(by_image)]
    n = min(limit, len(values))
    return [values[number * len(values) // n] for number in range(n)]


class Subject:
    """The model that is looked at, loaded when first used.

    Args:
        config: says which and where.
    """

    def __init__(self, config: Common):
        self.config = config

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import llava

        config = self.config
        return llava.load(
            config.model_path, device=config.device, dtype=config.dtype, attn_implementation=config.attn_implementation
        )

    @property
    def model(self) -> Any:
        return self._loaded[0]

    @property
    def processor(self) -> Any:
        return self._loaded[1]

    def usable(self, choices: list[Choice]) -> list[Choice]:
        """The methods that can work with this model; for each of the others a sentence on the screen.

        Raises:
            BadInput: none can; what the first one says.
        """
        found, refused = [], {}
        for choice in choices:
            try:
                choice.method(self.model)
            except (UnsupportedModel, ConfigurationError) as error:
                refused[choice.label] = error
            else:
                found.append(choice)
        if not found:
            raise next(iter(refused.values()))
        for label, reason in refused.items():
            warn(f"{label} was left out: {reason}")
        return found

    def finish(self, finding: Finding) -> None:
        """Show what was found and write its files."""
        from llava.analysis import output

        record = self.record()
        output.screen(finding)
        for path in output.write(finding, record, self.line(record), self.config.output):
            say(f"Written: {path}")

    def record(self) -> dict[str, Any]:
        """Model, machine and versions as plain JSON."""
        from llava.eval import identity

        return {
            "model": {
                "name": Path(self.config.model_path or EMBEDDED).name,
                "family": self.processor.family,
                "weights_digest": identity.weights_digest(self.model),
            },
            **identity.hardware(self.model),
            **identity.surroundings(),
        }

    def line(self, record: dict[str, Any]) -> str:
        """The same in one line."""
        versions = record["versions"]
        return (
            f"{record['model']['name']} (weights {record['model']['weights_digest']}), {record['device']}, "
            f"{record['dtype']}, {record['attention']} attention, torch {versions['torch']}, "
            f"transformers {versions['transformers']}"
        )
