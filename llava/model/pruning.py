"""A method applied to a model: the `with` block, the permanent form, and the reports."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from llava.errors import LlavaError
from llava.model.before_llm import Shortening
from llava.model.encoding import Encoding
from llava.model.families import family_of
from llava.model.fast import Fast
from llava.model.fast.path import FastPath
from llava.model.report import PrefillRecord, Report, RunTotals
from llava.model.reuse import Reuse
from llava.model.sharing import Sharing
from llava.model.surgery import STATE, Surgery
from llava.reduction.base import Reduction
from llava.reduction.image import BeforeLLM

REPORTS_KEPT = 256

MARK = "llava_pruning"  # attribute of the decoder while a pruning is at work on it


class AlreadyPruned(LlavaError):
    """The model is already pruned by a method; one at a time."""


class Pruning:
    """A method on a model, as `with method(model) as pruning: ...` or `pruning = method.apply(model)`.

    Generations may interleave on one model, but its forward passes must not run in several threads at once.

    Args:
        method: which visual tokens survive.
        model: a vision-language model of transformers, as `llava.load` returns it.
        scores: whether the reports also say what the method ranked the tokens by (`Report.steps`).
        fast: whether to compile the layers after the last cut and the decoding steps; `llava.model.fast.Fast` has the
            options. What cannot be compiled runs as without it, and the reason is told once (`fast_reason`).
        reuse: where to keep what questions about the same image share; None: every prompt is computed in full.

    Raises:
        UnsupportedModel: the family is not known, or the method cannot work with this model.
    """

    def __init__(
        self,
        method: Reduction,
        model: Any,
        *,
        scores: bool = False,
        fast: bool | Fast = False,
        reuse: Reuse | None = None,
    ):
        self.model = getattr(model, "_orig_mod", model)  # torch.compile hides the model inside
        self.family = family_of(self.model)
        decoder: Any = self.family.decoder(self.model)
        self.method = method = method.fitted(len(decoder.layers))
        self._surgery = Surgery(method, self.model, self.family, self._note)
        before = next((part for part in method.parts if isinstance(part, BeforeLLM)), None)
        self._shortening = None if before is None else Shortening(before, self.model, self.family)
        self.reuse = reuse
        self._encoding = Encoding(method, self.model, self.family, reuse)
        self._surgery.encoded_units = self._encoding.units_of
        if reuse is not None and reuse.prefixes:
            inside, together = self._surgery.method, self._surgery.together
            self._surgery.sharing = Sharing(method, inside, self.model, self.family, reuse, together, anew=scores)
        self._surgery.scores = scores
        if self._shortening is not None:
            self._shortening.scores, self._shortening.reuse = scores, reuse
        options = Fast() if fast is True else fast
        between = bool(self.family.adds_between_layers)
        self._fast = FastPath(self.model, decoder, options, STATE, tail=not between) if options else None
        self._records: deque[PrefillRecord] = deque()
        self._reports: deque[Report] = deque(maxlen=REPORTS_KEPT)
        self._totals = RunTotals()

    def install(self) -> Pruning:
        """Prune from now on, until `remove()`.

        Raises:
            AlreadyPruned: a pruning is at work on this model.
            UnsupportedModel: the method cannot work with this model.
        """
        at_work = getattr(self._surgery.decoder, MARK, None)
        if at_work is not None:
            raise AlreadyPruned(
                f"The model is already pruned by {at_work.method}. Leave that `with` block or call remove() first; two "
                "methods cannot be nested."
            )
        if self._fast is not None:  # first, so that it gets the prompts as they are run
            self._fast.install()
            self._surgery.tail = self._fast.tail
        self._surgery.install()
        self._encoding.install()
        if self._shortening is not None:
            self._shortening.install()
            self._surgery.short_prompt = self._shortening.current
        setattr(self._surgery.decoder, MARK, self)
        return self

    def remove(self) -> None:
        """Give the model back as it was; harmless when nothing is installed."""
        if self.active:
            if self._shortening is not None:
                self._shortening.remove()
            self._encoding.remove()
            self._surgery.remove()
            if self._fast is not None:
                self._fast.remove()
            delattr(self._surgery.decoder, MARK)

    @property
    def active(self) -> bool:
        """Whether this pruning is at work."""
        return getattr(self._surgery.decoder, MARK, None) is self

    @property
    def fast_reason(self) -> str | None:
        """Why nothing is compiled although it was asked for; None: it is, or it was not asked for."""
        return None if self._fast is None else self._fast.reason

    def __enter__(self) -> Pruning:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def reports(self) -> list[Report]:
        """One report per prefill, newest last; the last 256 are kept."""
        self._count()
        return list(self._reports)

    @property
    def last(self) -> Report | None:
        """The report of the newest prefill; None before the first."""
        self._count()
        return self._reports[-1] if self._reports else None

    def summary(self) -> dict[str, Any]:
        """Means per sample over all prefills so far (selection time per prefill), with the numbers of both."""
        self._count()
        return {"method": self.method.name, **self._totals.means()}

    def _note(self, record: PrefillRecord) -> None:
        # Counting waits for the device, so records are counted when someone asks, or when many have come together.
        self._records.append(record)
        if len(self._records) >= REPORTS_KEPT:
            self._count()

    def _count(self) -> None:
        while self._records:
            report = self._records.popleft().report()
            self._reports.append(report)
            self._totals.add(report)
