"""Base of the methods that act before the language model: what they see of an image, and what they return.

Two kinds: `BeforeLLM` chooses (or merges) among the finished tokens of one image; `Encoder` also merges tokens while
the vision tower runs. Either way the language model gets a shorter prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.reduction.base import ORIGINAL, RENUMBERED, Reduction
from llava.reduction.checks import option

LANGUAGE, TOWER = "language", "tower"
BETWEEN, AFTER = "attention", "block"
ONE_IMAGE, ONE_TILE = "image", "tile"


@dataclass(frozen=True)
class TowerLayer:
    """What one block of the vision tower computed for T tiles of S tokens (the [CLS] token first, if there is one).

    Args:
        number: the block, 0-based.
        query, key: (T, H, S, d) projections with bias, not scaled.
        scaling: factor on the attention logits.
        has_cls: whether token 0 is [CLS].
        output: (T, S, C) the block's output; None while the block runs.
    """

    number: int
    query: Tensor
    key: Tensor
    scaling: float
    has_cls: bool
    output: Tensor | None = None

    @property
    def heads(self) -> int:
        """Attention heads H."""
        return self.query.shape[1]

    def cls_attention(self) -> Tensor:
        """(T, H, N) softmax row of [CLS] over all tokens, without its own column; not renormalised."""
        logits = (self.query[:, :, :1] @ self.key.transpose(-1, -2)).float() * self.scaling
        return logits.softmax(-1).to(self.query.dtype)[:, :, 0, 1:]

    def queries(self) -> Tensor:
        """(T, S, H * d) queries, heads side by side."""
        return self.query.transpose(1, 2).flatten(2)

    def keys(self) -> Tensor:
        """(T, S, H * d) keys, heads side by side."""
        return self.key.transpose(1, 2).flatten(2)

    def of(self, tiles: slice) -> TowerLayer:
        """The same for some of the tiles."""
        output = None if self.output is None else self.output[tiles]
        return TowerLayer(self.number, self.query[tiles], self.key[tiles], self.scaling, self.has_cls, output)


@dataclass(frozen=True)
class Tiles:
    """The pieces an image was cut into; most models have one. Tile 0 shows the whole image, the others are crops.

    Args:
        features: (T, N, D) projected tokens of every tile.
        tower: (T, S, C) what the tower gave for them before the projector, [CLS] included; None if not read.
        side: (h, w) tokens of a tile; None if not known, or if tokens were merged in the tower.
        grid: (rows, columns) of the crops, row-major; None without crops.
        size: (height, width) of the original image in pixels, where tiles depend on it.
        newline: (D,) embedding that ends a row of tokens; None where there is none.
        source: (L,) which token (tile * N + number) every token of `ImageState.features` is, -1 at newlines; None: all
            of them in order.
    """

    features: Tensor
    tower: Tensor | None = None
    side: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    newline: Tensor | None = None
    source: Tensor | None = None


@dataclass(frozen=True)
class ImageState:
    """One image (or video) as a method sees it.

    Args:
        features: (L, D) its tokens as the unpruned language model would get them.
        tiles: the pieces it was cut into.
        layers: blocks of the tower that were read, see `BeforeLLM.tower_layers`.
        seed: a function of the prompt's words and the number of the image in it.
        project: the model's projector, (..., C) -> (..., D).
        memory: what `Encoder.begin` returned for the pass that encoded this image.
        rows: which tiles of that pass are this image's.
        feature_layer: block whose output feeds the projector.
    """

    features: Tensor
    tiles: Tiles
    layers: dict[int, TowerLayer] = field(default_factory=dict)
    seed: int = 0
    project: Callable[[Tensor], Tensor] = lambda hidden: hidden
    memory: Any = None
    rows: slice = field(default_factory=lambda: slice(None))
    feature_layer: int | None = None
    n_layers: int = 0

    @property
    def n_visual(self) -> int:
        """Tokens of the image, L."""
        return self.features.shape[0]

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) in which the L tokens stand; None if they stand in no plain grid."""
        side = self.tiles.side
        if side is None or self.tiles.source is not None or side[0] * side[1] != self.n_visual:
            return None
        return side

    def layer(self, number: int | None) -> TowerLayer:
        """A block of the tower: 0-based, negative from the end, None: the one whose output feeds the projector."""
        wanted = self.feature_layer if number is None else number
        if wanted is None:
            raise KeyError("The block whose output feeds the projector is not known.")
        return self.layers[wanted % self.n_layers]


@dataclass(frozen=True)
class Kept:
    """What goes on of one image.

    Args:
        indices: (K,) ascending offsets among the image's L tokens; None: the tokens in `values` stand nowhere special.
        values: (K, D) new values in the order in which they go on; None: those of the tokens at `indices`.
        space: "language": `values` are embeddings of the language model; "tower": they are still to be projected.
        handed: scores by name, (K,) each, for the stages after this one.
        sources: (K,) which token (tile * N + number) each of `values` mainly comes from, -1: none; only for pictures.
        scores: (L,) what the image's tokens were ranked by (`BeforeLLM.scores`), where somebody wants to see it.
    """

    indices: Tensor | None = None
    values: Tensor | None = None
    space: str = LANGUAGE
    handed: dict[str, Tensor] = field(default_factory=dict)
    sources: Tensor | None = None
    scores: Tensor | None = None

    @property
    def count(self) -> int:
        """How many go on, K."""
        tokens = self.values if self.indices is None else self.indices
        return 0 if tokens is None else len(tokens)


@dataclass(frozen=True)
class BeforeLLM(Reduction):
    """A method that chooses among the tokens of each image before the language model sees them.

    Args:
        keep: visual tokens left per image (count), or a fraction in (0, 1] of that image's tokens.
        positions: "renumbered": tokens are numbered without gaps, as in a shorter prompt; "original": survivors keep
            the positions they have in the full prompt. Models whose visual tokens have a time, a row and a column keep
            the original ones either way.
    """

    keep: int | float = 128
    positions: str = option(RENUMBERED, choices=(RENUMBERED, ORIGINAL))

    stage: ClassVar[str] = "before the language model"
    needs_cls: ClassVar[bool] = False  # whether it cannot do without a [CLS] token in the vision tower
    needs_tiles: ClassVar[bool] = False  # whether it only works on images cut into a thumbnail and crops
    resizes: ClassVar[bool] = False  # whether `resized` is to be called
    score_name: ClassVar[str] = ""  # what `scores` are, in words

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        """Blocks of the vision tower to be read (queries, keys, output); see `ImageState.layer`."""
        return ()

    def asked(self, n_visual: int) -> int:
        return min(n_visual, max(1, int(n_visual * self.keep)) if isinstance(self.keep, float) else self.keep)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        """Visual tokens of one image that will survive, known before running; None if the content decides.

        Args:
            n_visual: tokens of the image.
            n_tiles: tiles it is cut into.
        """
        return self.asked(n_visual)

    def keeps_all(self, n_visual: int, n_tiles: int = 1) -> bool:
        """Whether an image is left alone; if all images are, the model runs as without a method."""
        if isinstance(self.keep, float) and self.keep >= 1:
            return True
        kept = self.n_kept(n_visual, n_tiles)
        return kept is not None and kept >= n_visual

    def resized(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of patches the tower is to see instead of (rows, columns), if the class says `resizes`."""
        return rows, columns

    def select_image(self, image: ImageState) -> Kept:
        """Choose what goes on of one image."""
        raise NotImplementedError

    def scores(self, image: ImageState) -> Tensor | None:
        """Return what `select_image` ranks the tokens of every tile by, (T, N), the larger the better; None: no number
        per token.

        Only called when somebody wants to see the scores.
        """
        return None


@dataclass(frozen=True)
class TowerInfo:
    """The tower a method is about to merge in.

    Args:
        n_layers: blocks.
        feature_layer: block whose output feeds the projector; later ones change nothing.
        n_tiles: tiles encoded in this pass, T.
        tiles_per_image: tiles of the image that is encoded (of the first one, where several are at once).
        side: (h, w) tokens of a tile.
        has_cls: whether every tile's sequence begins with [CLS].
        device: where it runs.
    """

    n_layers: int
    feature_layer: int
    n_tiles: int
    tiles_per_image: int
    side: tuple[int, int]
    has_cls: bool
    device: torch.device


@dataclass(frozen=True)
class Encoder(BeforeLLM):
    """A method that merges tokens while the vision tower runs; see `BeforeLLM` for the options."""

    stage: ClassVar[str] = "inside the vision tower"
    place: ClassVar[str] = BETWEEN  # where `merge` is called: between "attention" and MLP, or after the "block"
    alone: ClassVar[str] = ""  # "image" or "tile": encode one at a time; "": all of the batch together

    def encoder_layers(self, tower: TowerInfo) -> tuple[int, ...]:
        """Blocks in which `merge` is called (0-based)."""
        raise NotImplementedError

    def begin(self, tower: TowerInfo) -> Any:
        """Return what the method wants to remember during one pass of the tower; it comes back in every call."""
        return {}

    def merge(self, memory: Any, layer: TowerLayer, hidden: Tensor) -> Tensor:
        """Merge tokens: (T, S, C) -> (T, S', C).

        Args:
            memory: what `begin` returned.
            layer: queries and keys of this block; only its number at `place` "block".
            hidden: residual stream after the block's attention, or after the block.
        """
        raise NotImplementedError

    def key_bias(self, memory: Any) -> Tensor | None:
        """(T, S) what is added to the attention logits of every key in the blocks to come; None: nothing."""
        return None

    def select_image(self, image: ImageState) -> Kept:
        """All that the tower left, in its order, tile after tile."""
        return Kept(values=image.tiles.features.flatten(0, 1))
