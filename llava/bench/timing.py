"""Timing helpers: runs in turns, medians and quartiles, parts of a run, all synchronised with the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import StoppingCriteria

from llava.eval.generation import now
from llava.model.families.base import Family
from llava.model.stopwatch import Stopwatch
from llava.model.wrapping import Wrappers


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value; quartiles by linear interpolation."""
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
        return cls(statistics.median(values), low, high, len(values))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the `Spread` of some values as plain JSON."""
    return Spread.of(values).to_dict()


def ratios(baseline: Sequence[float], other: Sequence[float]) -> Spread:
    """Speed-up of `other` over `baseline`, repeat by repeat of the same round."""
    return Spread.of([b / o for b, o in zip(baseline, other, strict=True)])


@dataclass
class Turns:
    """What runs that took turns gave.

    Args:
        seconds: name -> seconds of every counted repeat.
        values: name -> what every counted repeat returned.
        complete: False after Ctrl-C; only whole rounds are in it.
    """

    seconds: dict[str, list[float]]
    values: dict[str, list[Any]]
    complete: bool = True


def take_turns(
    runs: Mapping[str, Callable[[], Any]],
    device: torch.device,
    repeats: int,
    warmup: int,
    tick: Callable[[], Any] = lambda: None,
    around: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext(),
) -> Turns:
    """Time every run `repeats` times in turn (a, b, a, b, ...), so that drift of the machine meets all of them alike.

    Args:
        runs: name -> what to time. What it returns may be a function: that is called when the clock has stopped, so
            that counting and reading clocks is not timed.
        warmup: rounds that are not counted.
        tick: called after every run.
        around: by name, what a run happens in; entering and leaving it is not timed.

    Raises:
        KeyboardInterrupt: Ctrl-C before one round was counted; later, what is there is returned.
    """
    turns = Turns({name: [] for name in runs}, {name: [] for name in runs})
    try:
        for turn in range(warmup + repeats):
            for name, run in runs.items():
                with around(name):
                    started = now(device)
                    value = run()
                    seconds = now(device) - started
                    value = value() if callable(value) else value
                if turn >= warmup:
                    turns.values[name].append(value)
                    turns.seconds[name].append(seconds)
                tick()
    except KeyboardInterrupt:
        whole = min(map(len, turns.seconds.values()))
        if not whole:
            raise
        for lists in (turns.seconds, turns.values):
            for values in lists.values():
                del values[whole:]
        turns.complete = False
    return turns


class TokenClock(StoppingCriteria):
    """Never stops a generation; notes when every token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.times.append(now(input_ids.device))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def steps(self) -> list[float]:
        """Return the seconds between one token and the next."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


class PartTimes:
    """What one run spent in the vision tower (with projector) and in the language model.

    Args:
        device: whose time it is.
        sees_vision: whether the vision tower can be told apart.
    """

    def __init__(self, device: torch.device, sees_vision: bool):
        self.device, self.sees_vision = device, sees_vision
        self.vision = Stopwatch(device)
        self.language: list[Stopwatch] = []

    def vision_seconds(self) -> float | None:
        """Return the seconds in vision tower and projector; None where they cannot be told apart."""
        return self.vision.seconds() if self.sees_vision else None

    def prefill_seconds(self) -> float:
        """Return the seconds of the language model's first pass, selection inside it included."""
        return self.language[0].seconds() if self.language else 0.0


class PartClock:
    """Notes what the parts of a model take, without making the host wait for the device.

    It is put on before a method, and taken off after; the model's own functions are wrapped, nothing else changes.

    Args:
        model, family: a vision-language model and its adapter.
    """

    def __init__(self, model: Any, family: Family):
        self.device = model.device
        self.wrappers = Wrappers()
        body = family.body(model)
        self.encoders = [name for name in ("get_image_features", "get_video_features") if hasattr(body, name)]
        for name in self.encoders:
            self.wrappers.wrap(body, name, self._around_vision)
        self.wrappers.wrap(family.decoder(model), "forward", self._around_language)
        self.times = self.begin()

    def begin(self) -> PartTimes:
        """Return the times of the run that begins now."""
        self.times = PartTimes(self.device, bool(self.encoders))
        return self.times

    def __enter__(self) -> PartClock:
        return self

    def __exit__(self, *_: Any) -> None:
        self.wrappers.unwrap_all()

    def _around_vision(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.times.vision.running():
            return original(*args, **kwargs)

    def _around_language(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.times.language.append(Stopwatch(self.device))
        with self.times.language[-1].running():
            return original(*args, **kwargs)
