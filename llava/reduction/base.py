"""Base classes of the methods: options and their checks, budgets, and the door to the model.

A method is a frozen dataclass. Its fields are the options; its class says where it cuts. The base classes own what all
methods share, so that a method only names survivors. Nothing here knows a model, a tokenizer or a cache.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction import budgets
from llava.reduction.attention import AttentionRows, RecordedRows
from llava.reduction.calibration import Calibration
from llava.reduction.checks import option, value_problems
from llava.reduction.groups import Groups

if TYPE_CHECKING:
    from llava.model.pruning import Pruning

Kind = TypeVar("Kind")
Needed = Union[Kind, Any]  # noqa: UP007 - None unless the method's `needs` name it

EACH, TOGETHER = "each", "together"
COUNTS = {str(keep): {"keep": keep} for keep in (192, 128, 64, 320)}  # the budgets that comparison tables use
# What a method may name in its `needs`.
OFFERED = ("normed", "keys", "values", "received", "attention", "attention_ahead", "rotary", "seeds")
ORIGINAL, RENUMBERED, AUTO = "original", "renumbered", "auto"


@dataclass(frozen=True)
class Reduction:
    """A way of choosing which visual tokens survive.

    Raises:
        ConfigurationError: on construction, naming every wrong option at once.
    """

    name: ClassVar[str] = ""  # set by the registry
    stage: ClassVar[str] = ""  # where it cuts, in words
    paper: ClassVar[str] = ""  # title or arXiv number
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # published settings: name -> options
    calibration: ClassVar[Calibration | None] = None  # the option to turn until a budget is met
    # Whether what survives of an image may depend on anything but the prompt up to the end of that prompt's last image.
    # What does not is chosen once per image where prompts share images (`llava.model.reuse`).
    depends_on_question: ClassVar[bool] = True

    # Decoder layers of the model the method is at work on; no option.
    n_layers: int | None = field(default=None, kw_only=True, compare=False, repr=False, metadata={"private": True})

    def __post_init__(self) -> None:
        problems = value_problems(self)
        # Rules between options assume values of the right kind, so they are looked at only then.
        problems = problems or self.problems()
        if problems:
            raise ConfigurationError(*problems)

    def problems(self) -> list[str]:
        """Return one sentence per contradiction between options; called once each value alone is fine."""
        return []

    @classmethod
    def preset(cls, name: str, **options: Any) -> Any:
        """Return the method with a published setting, e.g. `FastV.preset("128")`; `options` overrule it.

        Raises:
            ConfigurationError: no such setting; the message lists those there are.
        """
        if str(name) not in cls.presets:
            raise ConfigurationError(no_preset(cls, name))
        return cls(**{**cls.presets[str(name)], **options})

    @property
    def parts(self) -> tuple[Reduction, ...]:
        """The simple methods this one is made of, in the order in which they act."""
        return (self,)

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers whose input is cut (0-based, ascending); empty when nothing is cut inside the model."""
        return ()

    def fitted(self, n_layers: int) -> Any:
        """The same method, knowing that the model it works on has `n_layers` decoder layers."""
        return dataclasses.replace(self, n_layers=n_layers)

    def asked(self, n_visual: int) -> int:
        """Visual tokens of one image the user asked to keep."""
        return n_visual

    def n_kept(self, n_visual: int) -> int | None:
        """Visual tokens of one image that will survive, known before running; None if the content decides."""
        return n_visual

    def __call__(self, model: Any, **options: Any) -> Pruning:
        """Return the pruning of `model` by this method, to be used in a `with` block.

        Args:
            options: `fast`, `scores`; see `llava.model.pruning.Pruning`.
        """
        from llava.model.pruning import Pruning  # the one door from methods to models, opened only when used

        return Pruning(self, model, **options)

    def apply(self, model: Any, **options: Any) -> Pruning:
        """Prune `model` until `remove()` is called on the returned object; options as in a `with` block."""
        return self(model, **options).install()


def no_preset(cls: type[Reduction], name: str) -> str:
    """The sentence for a published setting that a method has not."""
    has = f"It has: {', '.join(cls.presets)}." if cls.presets else "It has none; give keep=128 or another count."
    return f"Method {cls.name!r} has no preset {name!r}. {has}"


@dataclass
class LayerState:
    """What a method may look at when the input of decoder layer `layer` is cut; B padded sequences of S columns.

    Only the tensors named in the method's `needs` are there; the others are None.

    Args:
        layer: decoder layer whose input is cut (0-based); everything below is read from layer - 1.
        hidden: (B, S, D) its input, i.e. the residual stream after layer - 1.
        groups: the selection problems, one row per image or prompt.
        normed: (B, S, D) `hidden` after the decoder's final norm; needs "normed".
        keys: (B, S, C) keys after rotary embedding, key/value heads flattened; needs "keys".
        values: (B, S, C) values, key/value heads flattened; needs "values".
        received: (B, S) attention each column received, mean over heads and real queries; needs "received".
        attention: rows of the method's `queries`; needs "attention" (those of layer - 1) or "attention_ahead" (those
            that `layer` itself would compute on the columns before the cut).
        rotary: (B, S, d) cosines and sines of the columns' positions; needs "rotary".
        seeds: one integer per selection problem, a function of the sample's tokens alone; needs "seeds".
        handed: (R, L) scores by name, handed on by a stage before the language model.
        prepared: what the method's `prepare` returned for this prompt.
    """

    layer: int
    hidden: Tensor
    groups: Groups
    normed: Needed[Tensor] = None
    keys: Needed[Tensor] = None
    values: Needed[Tensor] = None
    received: Needed[Tensor] = None
    attention: Needed[AttentionRows | RecordedRows] = None
    rotary: Needed[tuple[Tensor, Tensor]] = None
    seeds: Needed[list[int]] = None
    handed: dict[str, Tensor] = field(default_factory=dict)
    prepared: Any = None


@dataclass(frozen=True)
class Selection:
    """Survivors of a cut of which some are mixtures of several tokens.

    Args:
        kept: (R, L) bool, the survivors; a mixture stands at one of the tokens that went into it.
        order: (R, M) indices into L, the survivors in the order in which they go on; rows with fewer survivors than M
            are padded at the end. None: ascending.
        values: (R, M, D) new hidden states in that order; None: no token changes.
        mixed: (R, M) True where `values` counts.
    """

    kept: Tensor
    order: Tensor | None = None
    values: Tensor | None = None
    mixed: Tensor | None = None


@dataclass(frozen=True)
class CacheState:
    """What a method may look at when the cache of one layer is cut at the end of the prefill.

    Args:
        layer: decoder layer (0-based).
        groups: the selection problems among the columns this layer's cache holds.
        survivors: (R, L) bool, those of its visual tokens that the last layer still sees.
    """

    layer: int
    groups: Groups
    survivors: Tensor


@dataclass(frozen=True)
class LLMStage(Reduction):
    """What a method that cuts inside the language model may define; it has no options of its own.

    The cuts are made during the prefill, at the input of every decoder layer named by `layers`.
    """

    stage: ClassVar[str] = "inside the language model"
    needs: ClassVar[frozenset[str]] = frozenset()
    # "original" positions stay with the survivors; "renumbered": counted anew, without gaps, after every cut; "auto":
    # renumbered, except in models whose visual tokens have positions of several dimensions.
    position_policy: ClassVar[str] = ORIGINAL
    cuts_cache: ClassVar[bool] = False  # whether `select_cache` is to be called
    score_name: ClassVar[str] = ""  # what `scores` are, in words

    def prepare(self, state: LayerState) -> Any:
        """Look at the prompt once, before decoder layer 0; `state.hidden` are the input embeddings.

        Returns:
            Anything; it comes back as `state.prepared` at every cut.
        """
        return None

    def queries(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Queries whose attention rows are wanted: (R, Q) columns, and (R, Q) bool, False at padding.

        Default: the text tokens after the last visual token.
        """
        return groups.text_columns, groups.text_valid

    def plan(self, groups: Groups) -> list[int] | None:
        """Survivors of each selection problem if the host can know them, which spares a wait for the device.

        Nothing is cut at `groups.layer` when all survive.
        """
        return None

    def select(self, state: LayerState) -> Tensor | Selection:
        """Return the (R, L) bool mask of surviving visual tokens, one row per problem of `state.groups`.

        Text tokens are not in it: they always survive. A method that merges tokens returns a `Selection`.
        """
        raise NotImplementedError

    def scores(self, state: LayerState) -> Tensor | None:
        """Return what `select` ranks the visual tokens by, (R, L), the larger the better; None: no number per token.

        Only called when somebody wants to see the scores.
        """
        return None

    def select_cache(self, state: CacheState) -> Tensor | None:
        """Return the (R, L) bool mask of visual tokens that stay in the cache of layer `state.layer`; None: all stay.

        Called once per layer (but the first) at the end of the prefill, if the class says `cuts_cache`.
        """
        return None


@dataclass(frozen=True)
class InLLM(LLMStage):
    """A method that cuts once inside the language model.

    Args:
        keep: visual tokens left per image (count), or a fraction in (0, 1] of that image's tokens.
        layer: decoder layer whose input is cut (0-based); "after layer K" in the paper's words.
        images: "each" gives every image of a prompt its own budget and competition; "together" lets all visual tokens
            of a prompt compete for the sum of the budgets.
    """

    keep: int | float = 128
    layer: int = option(2, low=1)
    images: str = option(EACH, choices=(EACH, TOGETHER))

    presets: ClassVar[dict[str, dict[str, Any]]] = COUNTS

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def asked(self, n_visual: int) -> int:
        return int(self.target(n_visual))

    def n_kept(self, n_visual: int) -> int | None:
        return self.asked(n_visual)

    def budget_of(self, n_images: int) -> int | float:
        """`keep` for a problem that spans `n_images` images: counts add up, fractions stay."""
        return self.keep if isinstance(self.keep, float) else self.keep * n_images

    def target(self, n_visual: int, n_images: int = 1) -> float:
        """`keep` as a number of tokens, for a problem of `n_visual` tokens in `n_images` images."""
        keep = self.budget_of(n_images)
        return n_visual * keep if isinstance(keep, float) else min(n_visual, keep)

    def count_for_mean(self, n_visual: int, n_images: int = 1) -> int:
        """Survivors of the cut if `keep` is to be the mean over all layers.

        Raises:
            ConfigurationError: see `budgets.count_after_one_cut`.
        """
        return budgets.count_after_one_cut(self.target(n_visual, n_images), n_visual, self.layer, self.n_layers)


def last_query(groups: Groups) -> tuple[Tensor, Tensor]:
    """The last real token of each problem's prompt, as `InLLM.queries` returns it."""
    return groups.last[:, None], torch.ones_like(groups.last[:, None], dtype=torch.bool)
