"""`python -m llava.analysis theory`: the paper's bound on what is lost, and one that holds, on real activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.analysis.common import FromBenchmark, Subject
from llava.errors import ConfigurationError

if TYPE_CHECKING:
    from llava.analysis.theory_page import Measured
    from llava.methodlists import Choice


@dataclass(frozen=True)
class Theory(FromBenchmark):
    """Measure how far what is kept is from all tokens, the bounds on it, and how much the output changes."""

    methods: str = "dart,fastv,random"
    """Methods that cut once inside the language model, separated by commas."""
    keep: str = "192,128,64"
    """Visual tokens to keep of an image: counts or fractions, separated by commas."""

    def problems(self) -> list[str]:
        found = super().problems()
        return found or [
            f"{choice.title} does not cut once inside the language model, so there is no one X and R: leave it out, or "
            "take dart, fastv, random."
            for choice in {choice.title: choice for choice in self.chosen()}.values()
            if not _cuts_once(choice.method)
        ]


def theory(config: Theory) -> None:
    """Run the methods, measure distances, bounds and outputs, write and show what was found."""
    from llava.analysis import collect, output, theory_page

    subject = Subject(config)
    questions = config.questions(subject.processor.family)
    choices = [choice for choice in subject.usable(config.chosen()) if choice.keep is not None]
    if not choices:
        raise ConfigurationError("--methods names only methods that keep everything: type for example --methods dart.")
    found: list[Measured] = []
    for part in collect.batches(questions, config.batch_size):
        inputs = collect.asked(subject.processor, part)
        found += measure(subject.model, inputs, choices, [question.image_name for question in part])
    finding = output.Finding(
        name="theory",
        title="How far the kept tokens are from all tokens",
        settings=config.settings(),
        samples=len(questions),
        tables=[theory_page.bounds_table(found), theory_page.output_table(found), theory_page.image_table(found)],
        notes=[*theory_page.NOTES, *theory_page.verdicts(found)],
        facts={"spaces": theory_page.SPACES},
        draw=lambda pyplot: theory_page.draw(pyplot, found),
    )
    subject.finish(finding)


def measure(model: Any, inputs: Any, choices: Sequence[Choice], names: Sequence[str]) -> list[Measured]:
    """Measure one batch under every method.

    Args:
        inputs: of the model's processor.
        names: of the images.
    """
    import torch

    from llava.analysis import bounds, collect
    from llava.analysis.pivots import watched
    from llava.analysis.theory_page import HIDDEN, NORMED, UNIT, Measured
    from llava.model.families import family_of
    from llava.reduction import NoReduction
    from llava.reduction.dart import DART

    decoder: Any = family_of(model).decoder(model)
    whole = collect.run(model, inputs, NoReduction())
    found = []
    for choice in choices:
        method = watched(choice.method) if isinstance(choice.method, DART) else choice.method
        samples: Any = collect.run(model, inputs, method, method.layers[0])  # all of it is there: a layer was watched
        for row, (name, sample, full) in enumerate(zip(names, samples, whole, strict=True)):
            hidden, visual = sample.entering, sample.visual
            kept = ~visual
            kept[visual.nonzero().squeeze(1)[torch.from_numpy(sample.kept)]] = True
            pivots = kept
            seen: Any = getattr(method, "seen", None)
            if seen:
                real = inputs["attention_mask"][row].bool().cpu()
                pivots = seen[0][row].cpu()[real]
            with torch.inference_mode():
                normed = decoder.norm(hidden.to(model.device)).cpu()
            spaces = {HIDDEN: hidden, NORMED: normed, UNIT: torch.nn.functional.normalize(hidden.double(), dim=1)}
            measured = {space: bounds.measure(tokens, kept, pivots) for space, tokens in spaces.items()}
            found.append(
                Measured(
                    choice,
                    name,
                    {space: one for space, one in measured.items() if one is not None},
                    float((sample.logits - full.logits).norm()),
                    float(full.logits.norm()),
                    bool(sample.logits.argmax() == full.logits.argmax()),
                )
            )
    return found


def _cuts_once(method: Any) -> bool:
    from llava.reduction import NoReduction
    from llava.reduction.base import LLMStage

    return isinstance(method, NoReduction) or (
        isinstance(method, LLMStage) and len(method.layers) == 1 and len(method.parts) == 1
    )
