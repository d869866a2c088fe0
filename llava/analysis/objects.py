"""`python -m llava.analysis objects`: are the kept tokens on things, on signs, or on the background?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from llava.analysis.common import Common, Subject

if TYPE_CHECKING:
    from llava.analysis.recall import Measure
    from llava.methodlists import Choice

NOTES = (
    "Scenes with known truth, drawn for this analysis from a seed that no training uses; every question names a thing "
    "that is there.",
    "A token is on a thing if more than 35 % of its cell show it (at least one token a thing), on a sign if more than "
    "half does, on a character if its middle lies in the character's box; background shows neither thing nor sign.",
    "`kept`: visual tokens in the last layer; methods that cut several times end below what was asked for, and are "
    "measured by what they end with.",
    "A merged token counts where it mainly comes from.",
    "`found`: share of the things (characters) of which at least one token is kept. The other columns: share of the "
    "tokens kept, divided by what as many random tokens reach (kept / total), so 1 is chance.",
)
RATIOS = ("thing tokens", "asked thing tokens", "sign tokens", "letter tokens", "background tokens")
FOUND = ("things found", "asked thing found", "letters found")


@dataclass(frozen=True)
class Objects(Common):
    """Measure how many tokens of things and signs each method keeps, on scenes whose truth is known."""

    methods: str = "dart,fastv,sparsevlm,visionzip,divprune,uniform,random"
    """Methods, separated by commas, or `all`."""
    keep: str = "192,128,64"
    """Visual tokens to keep of an image: counts or fractions, separated by commas."""
    limit: int = 40
    """Scenes to draw."""


def objects(config: Objects) -> None:
    """Draw scenes, run the methods, compare with the truth, write and show what was found."""
    from llava.analysis import collect, output, recall, truth
    from llava.report.overlay_boards import boards

    subject = Subject(config)
    model, processor = subject.model, subject.processor
    choices = subject.usable(config.chosen())
    drawn, truths = truth.examples(config.limit), []

    def prepared() -> Iterator[Any]:
        for part in collect.batches(drawn, config.batch_size):
            prompts = [processor.prompt(example.question) for example in part]
            inputs = processor(prompts, [[example.image] for example in part])
            for example, seen in zip(part, boards(model, processor, inputs), strict=True):
                truths.append(truth.truth(example, seen))
            yield inputs

    choices, samples = collect.kept_by_all(model, prepared(), choices)
    found = [
        recall.over_images(
            [recall.of_image(sample.kept, sample.n_visual, known) for sample, known in zip(own, truths, strict=True)]
        )
        for own in samples
    ]
    kept = [statistics.mean(len(sample.kept) for sample in own) for own in samples]
    header = ["method", "keep", "kept", *FOUND, "by chance", *(f"{name} / chance" for name in RATIOS)]
    rows = [
        [choice.title, choice.keep, size, *(_value(one, name) for name in FOUND)]
        + [one["things found"].chance, *(one[name].ratio if name in one else None for name in RATIOS)]
        for choice, size, one in zip(choices, kept, found, strict=True)
    ]
    long_header = ["method", "keep", "measure", "value", "margin 95 %", "chance", "value / chance", "images"]
    long = [
        [choice.title, choice.keep, name, own.value, own.margin, own.chance, own.ratio, own.images]
        for choice, one in zip(choices, found, strict=True)
        for name, own in one.items()
    ]
    finding = output.Finding(
        name="objects",
        title="Kept tokens on things, signs and background",
        settings=config.settings(),
        samples=len(drawn),
        tables=[
            output.Table("Found, and tokens kept relative to chance", header, rows, digits=2),
            output.Table("All measures", long_header, long, words=1, name="measures", on_page=False),
        ],
        notes=NOTES,
        facts={"means": recall.MEASURES, "shares": _shares(truths, samples[0])},
        draw=lambda pyplot: _draw(pyplot, choices, found),
    )
    subject.finish(finding)


def _value(one: dict[str, Measure], name: str) -> float | None:
    return one[name].value if name in one else None


def _shares(truths: Sequence[Any], samples: Sequence[Any]) -> dict[str, float]:
    """What part of all tokens things, signs and background are."""
    total = sum(sample.n_visual for sample in samples)
    return {
        "things": sum(len(own) for known in truths for own in known.things) / total,
        "signs": sum(len(known.sign) for known in truths) / total,
        "background": sum(len(known.background) for known in truths) / total,
    }


def _draw(pyplot: Any, choices: Sequence[Choice], found: Sequence[dict[str, Measure]]) -> Any:
    """One line per method, one mark per budget, with 95 % intervals; chance as a line."""
    from llava.report.figures import style

    titles = list(dict.fromkeys(choice.title for choice in choices))
    keeps = list(dict.fromkeys(choice.keep for choice in choices))
    panels = ("things found", "thing tokens", "letter tokens", "background tokens")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12.5, 0.42 * len(titles) + 1.9), sharey=True)
    for axis, name in zip(axes, panels, strict=True):
        relative = not name.endswith("found")
        for number, keep in enumerate(keeps):
            own = [
                (c.title, one[name]) for c, one in zip(choices, found, strict=True) if c.keep == keep and name in one
            ]
            scale = [measure.chance if relative else 0.01 for _, measure in own]
            shift = 0.16 * (number - (len(keeps) - 1) / 2)
            axis.errorbar(
                [measure.value / unit for (_, measure), unit in zip(own, scale, strict=True)],
                [titles.index(title) + shift for title, _ in own],
                xerr=_margins([measure for _, measure in own], scale, None if relative else 1.0),
                fmt=style.MARKERS[number % len(style.MARKERS)],
                color=style.SEQUENCE[number % len(style.SEQUENCE)],
                markersize=5.5,
                elinewidth=1,
                label="unpruned" if keep is None else f"{keep} asked for",
            )
            if not relative and own:
                chance = 100 * own[-1][1].chance
                axis.axvline(chance, color=style.SEQUENCE[number % len(style.SEQUENCE)], linewidth=1, linestyle=":")
        if relative:
            axis.axvline(1, color=style.INK, linewidth=1)
            axis.set_xlim(left=0)
        axis.set_title(name)
        axis.set_xlabel("relative to chance" if relative else f"% (dotted: chance of {titles[-1]})")
    axes[0].set_yticks(range(len(titles)), titles)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(keeps))
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    return figure


def _margins(measures: Sequence[Measure], scale: Sequence[float], most: float | None) -> list[list[float]]:
    """Lengths of the error bars below and above every mark; what cannot exceed `most` is cut there."""
    below = [measure.margin if isfinite(measure.margin) else 0.0 for measure in measures]
    above = [
        margin if most is None else max(0.0, min(margin, most - measure.value))
        for margin, measure in zip(below, measures, strict=True)
    ]
    return [[margin / unit for margin, unit in zip(side, scale, strict=True)] for side in (below, above)]
