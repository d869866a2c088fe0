"""Token accounting of one prefill, and its means over a run."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llava.model import accounting
from llava.model.accounting import DecoderSize
from llava.model.layout import Layout
from llava.model.shortprompt import ShortPrompt
from llava.model.stages import Stage
from llava.model.steps import Ranking, Step, inside_steps, whole_steps
from llava.model.stopwatch import Stopwatch
from llava.reduction.base import Reduction
from llava.reduction.image import BeforeLLM


@dataclass(frozen=True)
class Report:
    """What one prefill kept and cost; lists have one entry per sample of the batch.

    Args:
        method: name of the method.
        n_layers: decoder layers.
        prompt: prompt tokens, text and visual, padding not counted.
        visual: visual tokens before any cut.
        asked: visual tokens the user asked to keep (after rounding a fraction down).
        cut_layers: decoder layers whose input was cut; 0 stands for a cut before the language model.
        kept: visual tokens after each cut (one list per cut); empty when nothing was cut.
        final: visual tokens in the last layer.
        newlines: visual tokens before any cut that only end a row of an image (LLaVA-NeXT); they are in `visual` too.
        newlines_kept: those of them in the last layer, as far as tokens have a place of their own there.
        mean_over_layers: visual tokens processed per layer, mean over all decoder layers.
        cache_bytes: bytes of keys and values at the end of the prefill, read off the live cache; None without a cache.
        cache_bytes_unpruned: the same if every layer were as long as the first.
        flops_paper, flops_paper_unpruned: prefill by the paper's Eq. 11-13 (`accounting.flops_paper`).
        flops_exact, flops_exact_unpruned: floating point operations (`accounting.flops_exact`).
        reused: prompt tokens that came from a stored prefix (`llava.model.reuse`) in the first layer.
        flops_computed: floating point operations really done: `flops_exact` without those of stored prefixes, with
            those of prefixes that were computed to be stored.
        selection_seconds: time spent choosing and gathering, measured on the device, for the whole batch.
        indices: per sample and image, ascending offsets within the image of the tokens in the last layer; empty where
            tokens were merged and have no place of their own.
        steps: what every cut left of each image, in their order (one per cut).
    """

    method: str
    n_layers: int
    prompt: list[int]
    visual: list[int]
    asked: list[int]
    cut_layers: list[int]
    kept: list[list[int]]
    final: list[int]
    newlines: list[int]
    newlines_kept: list[int]
    mean_over_layers: list[float]
    cache_bytes: int | None
    cache_bytes_unpruned: int | None
    flops_paper: list[int]
    flops_paper_unpruned: list[int]
    flops_exact: list[int]
    flops_exact_unpruned: list[int]
    reused: list[int]
    flops_computed: list[int]
    selection_seconds: float
    indices: list[list[Tensor]] = field(repr=False, compare=False)
    steps: list[Step] = field(default_factory=list, repr=False, compare=False)
    _cache: Any = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the indices and steps, as plain numbers and lists."""
        return {name: value for name, value in vars(self).items() if name not in ("indices", "steps", "_cache")}

    def line(self) -> str:
        """One line for people."""
        if not any(self.visual):
            return f"{self.method}: no image in the prompt, {_total(self.prompt)} tokens"
        inside = "/".join(str(layer) for layer in self.cut_layers if layer)
        after = " before the language model" * (0 in self.cut_layers) + (f" after layer {inside}" if inside else "")
        newlines = ""
        if any(self.newlines):
            newlines = f", of them newlines {_total(self.newlines)} -> {_total(self.newlines_kept)}"
        reused = ""
        if any(self.reused):
            done = sum(self.flops_computed) / sum(self.flops_exact_unpruned)
            reused = f"; {_total(self.reused)} tokens from stored prefixes, FLOPs computed {done:.1%}"
        cache = "no cache"
        if self.cache_bytes is not None and self.cache_bytes_unpruned is not None:
            cache = f"cache {self.cache_bytes / 1e6:.1f} of {self.cache_bytes_unpruned / 1e6:.1f} MB"
        return (
            f"{self.method}: visual tokens {_total(self.visual)} -> {_total(self.final)}{after}{newlines} "
            f"(asked {_total(self.asked)}, mean over layers {sum(self.mean_over_layers):.1f}); {cache}; "
            f"prefill FLOPs {sum(self.flops_exact) / sum(self.flops_exact_unpruned):.1%} exact, "
            f"{sum(self.flops_paper) / sum(self.flops_paper_unpruned):.1%} by the paper's formula{reused}; "
            f"selection {self.selection_seconds * 1000:.1f} ms"
        )

    def live_cache_bytes(self) -> int | None:
        """Bytes the cache of this generation holds now; None when it is gone or there was none."""
        cache = self._cache() if self._cache is not None else None
        return None if cache is None else accounting.cache_bytes(cache)


@dataclass
class PrefillRecord:
    """What the surgery notes during a prefill; turned into a `Report` later, so that nothing waits for the device.

    Args:
        skipped: per layer and sample, tokens that came from a stored prefix; empty: none did.
        spent: by sample, tokens per layer of a prefix that was computed beforehand, to be stored.
    """

    method: Reduction
    size: DecoderSize
    layout: Layout
    stages: list[Stage]
    stopwatch: Stopwatch
    cache: Any = None
    cache_bytes: int | None = None
    cache_bytes_unpruned: int | None = None
    before: ShortPrompt | None = None
    rankings: list[Ranking] = field(default_factory=list)
    skipped: list[list[int]] = field(default_factory=list)
    spent: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def note_cache(self, cache: Any) -> None:
        """Read the cache at the end of the prefill."""
        if cache is None:
            return
        self.cache = weakref.ref(cache)
        self.cache_bytes = accounting.cache_bytes(cache)
        n_before = 0 if self.before is None else self.before.n_columns[0] - self.before.n_columns[1]
        self.cache_bytes_unpruned = accounting.cache_bytes_if_full(cache, n_before)

    def report(self) -> Report:
        """Count; waits for the device."""
        layout, size, stages = self.layout, self.size, self.stages
        visual = [sum(images) for images in layout.visual]
        alive = [_marked(layout, stage, stage.index) for stage in stages]
        kept = [(mask & (layout.host_image >= 0)).sum(1).tolist() for mask in alive]
        firsts = [stage.first_layer for stage in stages]
        left = [_indices(layout, _marked(layout, stage, stage.source)) for stage in stages]
        indices = left[-1] if left else _indices(layout, layout.host_real)
        steps = inside_steps(layout, list(zip(firsts, left, strict=True)), self.rankings)
        prompt, images, seconds = layout.lengths, layout.visual, self.stopwatch.seconds()
        if self.before is not None:
            kept, firsts, indices = [visual, *kept], [0, *firsts], self.before.whole_indices(indices)
            steps = whole_steps(self.before, steps, self._score_name)
            prompt, images = self.before.whole_lengths(len(prompt))
            visual = [sum(each) for each in images]
            seconds += self.before.stopwatch.seconds()
        cuts_before = [sum(first <= layer for first in firsts) for layer in range(size.layers)]
        counts = [visual, *kept]
        per_layer = [[counts[cuts][sample] for cuts in cuts_before] for sample in range(len(prompt))]
        text = [total - seen for total, seen in zip(prompt, visual, strict=True)]
        lengths = [[n + words for n in row] for row, words in zip(per_layer, text, strict=True)]
        full = [[total] * size.layers for total in prompt]
        newlines = self._newlines(images)
        return Report(
            method=self.method.name,
            n_layers=size.layers,
            prompt=prompt,
            visual=visual,
            asked=[sum(self.method.asked(n) for n in each) for each in images],
            cut_layers=firsts,
            kept=kept,
            final=kept[-1] if kept else visual,
            newlines=[sum(map(len, ends)) for ends in newlines],
            newlines_kept=[
                sum(int(torch.isin(chosen, end).sum()) for chosen, end in zip(own, ends, strict=True) if len(end))
                for own, ends in zip(indices, newlines, strict=True)
            ],
            mean_over_layers=[sum(row) / size.layers for row in per_layer],
            cache_bytes=self.cache_bytes,
            cache_bytes_unpruned=self.cache_bytes_unpruned,
            flops_paper=[accounting.flops_paper(row, size) for row in lengths],
            flops_paper_unpruned=[accounting.flops_paper(row, size) for row in full],
            flops_exact=[accounting.flops_exact(row, size) for row in lengths],
            flops_exact_unpruned=[accounting.flops_exact(row, size) for row in full],
            reused=self.skipped[0] if self.skipped else [0] * len(prompt),
            flops_computed=[self._computed(row, lengths[row]) for row in range(len(prompt))],
            selection_seconds=seconds,
            indices=indices,
            steps=steps,
            _cache=self.cache,
        )

    def _computed(self, row: int, lengths: list[int]) -> int:
        """Operations done for a sample: those of its tokens after the stored ones, and of a prefix stored for it."""
        size, stored = self.size, [layer[row] for layer in self.skipped]
        own = accounting.flops_exact(lengths, size) - accounting.flops_exact(stored, size)
        return own + accounting.flops_exact(self.spent.get(row, ()), size)

    @property
    def _score_name(self) -> str:
        return next((part.score_name for part in self.method.parts if isinstance(part, BeforeLLM)), "")

    def _newlines(self, images: list[list[int]]) -> list[list[Tensor]]:
        """Per sample and image of the whole prompts: offsets of tokens that only end a row."""
        known = self.layout.newlines if self.before is None else self.before.layout.newlines
        if not known:
            return [[torch.tensor([], dtype=torch.long)] * len(own) for own in images]
        return [list(ends) for ends in known for _ in range(len(images) // len(known))]


@dataclass
class RunTotals:
    """Sums over all prefills of a run, for the means."""

    prefills: int = 0
    samples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    cached: int = 0

    def add(self, report: Report) -> None:
        """Count one report."""
        self.prefills += 1
        self.samples += len(report.prompt)
        for name in accounting.PER_SAMPLE:
            self.sums[name] = self.sums.get(name, 0) + sum(getattr(report, name))
        self.sums["selection_seconds"] = self.sums.get("selection_seconds", 0) + report.selection_seconds
        if report.cache_bytes is not None:
            self.cached += len(report.prompt)
            for name in ("cache_bytes", "cache_bytes_unpruned"):
                self.sums[name] = self.sums.get(name, 0) + getattr(report, name)

    def means(self) -> dict[str, Any]:
        """Means per sample; selection time per prefill."""
        counts = {"selection_seconds": self.prefills, "cache_bytes": self.cached, "cache_bytes_unpruned": self.cached}
        means = {name: total / (counts.get(name, self.samples) or 1) for name, total in self.sums.items()}
        return {"prefills": self.prefills, "samples": self.samples, **means}


def _marked(layout: Layout, stage: Stage, columns: Tensor) -> Tensor:
    """(B, N) bool on the CPU: prompt columns that a stage has, by its `index` or its `source`."""
    valid = torch.ones_like(columns, dtype=torch.bool) if stage.valid is None else stage.valid
    marks = torch.zeros(layout.host_real.shape, dtype=torch.int32)
    return marks.scatter_add_(1, columns.cpu(), valid.int().cpu()) > 0


def _indices(layout: Layout, alive: Tensor) -> list[list[Tensor]]:
    """Per sample and image: offsets within the image of its tokens in `alive`."""
    return [
        [alive[sample][layout.host_image[sample] == image].nonzero().squeeze(1) for image in range(len(images))]
        for sample, images in enumerate(layout.visual)
    ]


def _total(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{sum(numbers)} in {len(numbers)} samples"
