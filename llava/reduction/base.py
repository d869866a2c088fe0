"""Base classes of the methods: options and their checks, budgets, and the door to the model.

A method is a frozen dataclass. Its fields are the options; its class says where it cuts. The base classes own what all
methods share, so that a method only names survivors. Nothing here knows a model, a tokenizer or a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction.checks import option, value_problems
from llava.reduction.groups import Groups

if TYPE_CHECKING:
    from llava.model.pruning import Pruning

EACH, TOGETHER = "each", "together"
OFFERED = ("normed", "keys", "values", "received", "seeds")  # what a method may name in its `needs`


@dataclass(frozen=True)
class Reduction:
    """A way of choosing which visual tokens survive.

    Raises:
        ConfigurationError: on construction, naming every wrong option at once.
    """

    name: ClassVar[str] = ""  # set by the registry
    stage: ClassVar[str] = ""  # where it cuts, in words
    paper: ClassVar[str] = ""  # title or arXiv number

    def __post_init__(self) -> None:
        problems = value_problems(self)
        # Rules between options assume values of the right kind, so they are looked at only then.
        problems = problems or self.problems()
        if problems:
            raise ConfigurationError(*problems)

    def problems(self) -> list[str]:
        """Return one sentence per contradiction between options; called once each value alone is fine."""
        return []

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers whose input is cut (0-based, ascending); empty when nothing is cut inside the model."""
        return ()

    def asked(self, n_visual: int) -> int:
        """Visual tokens of one image the user asked to keep."""
        return n_visual

    def n_kept(self, n_visual: int) -> int | None:
        """Visual tokens of one image that will survive, known before running; None if the content decides."""
        return n_visual

    def __call__(self, model: Any) -> Pruning:
        """Return the pruning of `model` by this method, to be used in a `with` block."""
        from llava.model.pruning import Pruning  # the one door from methods to models, opened only when used

        return Pruning(self, model)

    def apply(self, model: Any) -> Pruning:
        """Prune `model` until `remove()` is called on the returned object."""
        return self(model).install()


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
        seeds: one integer per selection problem, a function of the sample's tokens alone; needs "seeds".
    """

    layer: int
    hidden: Tensor
    groups: Groups
    normed: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    received: Tensor | None = None
    seeds: list[int] | None = None


@dataclass(frozen=True)
class InLLM(Reduction):
    """A method that cuts inside the language model, once, during the prefill.

    Args:
        keep: visual tokens left per image (count), or a fraction in (0, 1] of that image's tokens.
        layer: decoder layer whose input is cut (0-based); "after layer K" in the paper's words.
        images: "each" gives every image of a prompt its own budget and competition; "together" lets all visual tokens
            of a prompt compete for the sum of the budgets.
    """

    keep: int | float = 128
    layer: int = option(2, low=1)
    images: str = option(EACH, choices=(EACH, TOGETHER))

    stage: ClassVar[str] = "inside the language model"
    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def asked(self, n_visual: int) -> int:
        return min(n_visual, int(n_visual * self.keep) if isinstance(self.keep, float) else self.keep)

    def n_kept(self, n_visual: int) -> int | None:
        return self.asked(n_visual)

    def budget(self, n_images: int) -> int | float:
        """`keep` for a problem that spans `n_images` images: counts add up, fractions stay."""
        return self.keep if isinstance(self.keep, float) else self.keep * n_images

    def plan(self, groups: Groups) -> list[int] | None:
        """Survivors of each selection problem if the host can know them, which spares a wait for the device."""
        return None

    def select(self, state: LayerState) -> Tensor:
        """Return the (R, L) bool mask of surviving visual tokens, one row per problem of `state.groups`.

        Text tokens are not in it: they always survive.
        """
        raise NotImplementedError
