"""MustDrop: merge alike neighbours in the vision tower, drop what the text ignores in the LLM, then shrink the cache.

Source: "Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model", arXiv:2411.10803, and
the official code. Stage A: windows of alike neighbours are merged after an early tower layer; [CLS] elects key tokens.
Stage B: after a few decoder layers, tokens below two thresholds go, key tokens excepted. Stage C: at the end of the
prefill the cache of the cut layers keeps only what the last layer still sees.
Differences from the official code: batch > 1, several images, any number of layers; only the text rows are computed.

How it selects:
1. In the tower, after block `merge_layer`: windows of patches whose mean pairwise cosine reaches `sim_thr` become their
   mean. The `key_rate` of the remaining tokens that [CLS] attends to most in block `key_layer` are key tokens.
2. In the language model, at the output of a few layers: a token goes if all text together gives it less than
   `global_thr` of what it gives to the image, and no single text token gives it `individual_thr`. Key tokens stay. With
   a `keep`, those with the smallest sums go until the budget is met. Positions are counted anew after every cut.
3. In the cache, at the end of the prefill: the cut layers keep what the last layer sees.

When not to use it: where the cost must be known beforehand, unless with a `keep`: the thresholds were released for a
model of 32 layers, and on another they may drop much more or nothing; with vision towers that have no [CLS] token or
whose grid does not divide into windows (vision=False does without that stage).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from llava.errors import UnsupportedModel
from llava.reduction import budgets
from llava.reduction.base import ORIGINAL, RENUMBERED, CacheState, LayerState, Reduction
from llava.reduction.calibration import Calibration
from llava.reduction.checks import option
from llava.reduction.fastv import top_tokens
from llava.reduction.groups import Groups
from llava.reduction.image import AFTER, ONE_IMAGE, Encoder, ImageState, Kept, TowerInfo, TowerLayer
from llava.reduction.registry import register
from llava.reduction.schedule import Schedule, layer_problems
from llava.reduction.tensors import to_device, unit_vectors

EVENTS = (2, 6, 10, 14)
KEY = "key_tokens"
OFFICIAL, CLEAN = "official", "clean"


@register("mustdrop")
@dataclass(frozen=True)
class MustDrop(Schedule):
    """Three stages; how many tokens stay depends on image and question, unless `keep` is given.

    The defaults of the two thresholds, as released, drop nothing in the language model; take a preset.

    Args:
        keep: None: the thresholds decide. A budget: the tokens of least total attention go until it is met, every cut
            leaving the same count; key tokens still go last.
        budget, images, positions: see `Schedule`.
        global_thr: share of all attention from text to image; a token that gets less may go.
        individual_thr: attention from one text token; a token that gets so much from any of them stays.
        variant: "official": scores in the model's dtype; "clean": in single precision.
        prune_layers: layers whose output is cut. None: 2, 6, 10, 14; in models of fewer than 32 layers at the same
            depths.
        vision: whether stage A is done; without it there are no key tokens, and any model will do.
        window: side of the square windows of stage A; the token grid must be divisible by it.
        sim_thr: a window is merged if its mean pairwise cosine is at least this.
        merge_layer: tower layer after which windows are merged.
        key_rate: key tokens per token left after merging.
        key_layer: tower layer whose [CLS] row elects key tokens, from the end if negative.

    Raises:
        ConfigurationError: an option is wrong.
        UnsupportedModel: stage A cannot be done with this model's tower.
    """

    global_thr: float = option(1.0, low=0)
    individual_thr: float = option(0.0, low=0)
    variant: str = option(OFFICIAL, choices=(OFFICIAL, CLEAN))
    prune_layers: tuple[int, ...] | None = option(None)
    vision: bool = True
    window: int = option(3, low=1)
    sim_thr: float = 0.8
    merge_layer: int = option(0, low=0)
    key_rate: float = option(0.08, low=0)
    key_layer: int = -1

    stage: ClassVar[str] = "inside the vision tower, inside the language model, and in its cache"
    paper: ClassVar[str] = "arXiv:2411.10803"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    cuts_cache: ClassVar[bool] = True
    calibration: ClassVar[Calibration | None] = Calibration("global_thr", 1e-6, 1.0, rises=False)
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "192": {"global_thr": 0.001, "individual_thr": 0.001},
        "128": {"global_thr": 0.0012, "individual_thr": 0.001},
        "64": {"global_thr": 0.011, "individual_thr": 0.01},
        "64-vizwiz": {"global_thr": 0.005, "individual_thr": 0.001},
        "320": {"keep": 320},
    }

    def problems(self) -> list[str]:
        return layer_problems("prune_layers", self.prune_layers, 0)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.after(self.prune_layers, EVENTS)

    @property
    def parts(self) -> tuple[Reduction, ...]:
        if not self.vision:
            return (self,)
        tower = MustDropTower(
            keep=self.keep,
            positions=ORIGINAL if self.positions == ORIGINAL else RENUMBERED,
            window=self.window,
            sim_thr=self.sim_thr,
            merge_layer=self.merge_layer,
            key_rate=self.key_rate,
            key_layer=self.key_layer,
        )
        return (tower, self)

    def counts(self, n_visual: int, n_images: int = 1) -> list[int]:
        target = self.target(n_visual, n_images)

        def shape(scale: float) -> list[int]:
            return [min(n_visual, int(scale * n_visual))] * len(self.layers)

        if self.budget == budgets.EXACT:
            return shape(target / n_visual)
        counts = budgets.counts_for_mean(target, n_visual, self.layers, self.n_layers, shape)
        return budgets.settle_last(counts, target, n_visual, self.layers, self.n_layers)

    def asked(self, n_visual: int) -> int:
        return n_visual if self.keep is None else super().asked(n_visual)

    def n_kept(self, n_visual: int) -> int | None:
        return None if self.keep is None or self.vision else super().n_kept(n_visual)

    def plan(self, groups: Groups) -> list[int] | None:
        return None if self.keep is None else super().plan(groups)

    def select(self, state: LayerState) -> Tensor:
        groups = state.groups
        rows = state.attention.head_mean()  # (R, T, L)
        rows = rows.float() if self.variant == CLEAN else rows
        key = state.handed[KEY].bool() if KEY in state.handed else torch.zeros_like(groups.valid)
        if self.keep is None:
            return dual_attention(rows, key, groups.valid, self.global_thr, self.individual_thr)
        total = rows.float().sum(1)
        total = total / total.sum(1, keepdim=True).clamp_min(torch.finfo(total.dtype).tiny)
        return top_tokens(total + key, groups.valid, to_device(self.survivors(groups), total.device))

    def select_cache(self, state: CacheState) -> Tensor | None:
        """Layers from the first scored one on keep what the last layer sees; those before stay whole."""
        return state.survivors if state.layer >= self.layers[0] - 1 else None


@dataclass
class Windows:
    """What stage A remembers of a pass of the tower: the grid (h, w), and the patch each token stands for, (T, N')."""

    side: tuple[int, int]
    sources: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class MustDropTower(Encoder):
    """Stage A of MustDrop; its options are those of `MustDrop`."""

    keep: int | float | None = None  # type: ignore[assignment]
    window: int = 3
    sim_thr: float = 0.8
    merge_layer: int = 0
    key_rate: float = 0.08
    key_layer: int = -1

    name: ClassVar[str] = "mustdrop"
    depends_on_question: ClassVar[bool] = False
    needs_cls: ClassVar[bool] = True
    place: ClassVar[str] = AFTER
    alone: ClassVar[str] = ONE_IMAGE  # crops of one image merge equally many windows, images do not wait for each other

    @property
    def tower_layers(self) -> tuple[int | None, ...]:
        return (self.key_layer,)

    def n_kept(self, n_visual: int, n_tiles: int = 1) -> int | None:
        return None

    def keeps_all(self, n_visual: int, n_tiles: int = 1) -> bool:
        return self.keep is not None and self.asked(n_visual) >= n_visual

    def encoder_layers(self, tower: TowerInfo) -> tuple[int, ...]:
        if any(side % self.window for side in tower.side):
            rows, columns = tower.side
            raise UnsupportedModel(
                f"MustDrop merges windows of {self.window} x {self.window} tokens, which do not tile this tower's "
                f"{rows} x {columns} grid. Give window=2 or another divisor, or vision=False to do without that stage."
            )
        return (self.merge_layer,)

    def begin(self, tower: TowerInfo) -> Windows:
        return Windows(tower.side)

    def merge(self, memory: Windows, layer: TowerLayer, hidden: Tensor) -> Tensor:
        merged, memory.sources = merge_windows(hidden, memory.side, self.window, self.sim_thr)
        return merged

    def select_image(self, image: ImageState) -> Kept:
        rows = image.layer(self.key_layer).cls_attention()  # (T, H, N')
        key = torch.zeros(rows.shape[0], rows.shape[2], dtype=torch.bool, device=rows.device)
        key.scatter_(1, key_tokens(rows, self.key_rate), True)
        sources = image.memory.sources[image.rows]
        sources = sources + math.prod(image.memory.side) * torch.arange(len(sources), device=sources.device)[:, None]
        return Kept(values=image.tiles.features.flatten(0, 1), handed={KEY: key.flatten()}, sources=sources.flatten())


def merge_windows(hidden: Tensor, side: tuple[int, int], window: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Merge windows of alike neighbours: [CLS], merged windows from the most alike down, the other tokens in order.

    Equally many windows are merged in every row of the batch: as many as reach the threshold in the row with fewest.

    Args:
        hidden: (T, 1 + h * w, C), [CLS] first.
        side: (h, w), divisible by `window`.
        window: side of a window.
        threshold: smallest mean cosine over the pairs of a window.

    Returns:
        tokens (T, 1 + n, C), n = h * w - r * (window^2 - 1) for r merged windows; and sources (T, n), the patch each
        token but [CLS] stands for, a merged window's being the one in its middle.
    """
    height, width = side
    size = window * window
    number = torch.arange(height * width, device=hidden.device).view(height // window, window, width // window, window)
    members = number.transpose(1, 2).reshape(-1, size)  # (W, size) token of every window, row by row
    tokens = hidden[:, 1:]
    unit = unit_vectors(tokens[:, members]).float()
    cosine = unit @ unit.transpose(-1, -2)
    alike = (cosine.sum((-1, -2)) - cosine.diagonal(dim1=-2, dim2=-1).sum(-1)) / max(size * (size - 1), 1)  # (T, W)
    n_merged = int((alike >= threshold).sum(1).min())
    best = alike.sort(dim=1, descending=True, stable=True).indices[:, :n_merged]
    means = tokens[:, members].mean(2).gather(1, best[..., None].expand(-1, -1, tokens.shape[2]))
    gone = torch.zeros(tokens.shape[:2], dtype=torch.int8, device=hidden.device)
    gone.scatter_(1, members[best].flatten(1), 1)
    left = gone.argsort(dim=1, stable=True)[:, : tokens.shape[1] - n_merged * size]
    alone = tokens.gather(1, left[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([hidden[:, :1], means, alone], dim=1), torch.cat([members[best][..., size // 2], left], dim=1)


def key_tokens(rows: Tensor, rate: float) -> Tensor:
    """(T, ceil(rate * N)) tokens that [CLS] looks at most, best first, from its (T, H, N) attention rows."""
    count = math.ceil(rate * rows.shape[2])
    return rows.mean(1).sort(dim=1, descending=True, stable=True).indices[:, :count]


def dual_attention(rows: Tensor, key: Tensor, valid: Tensor, global_thr: float, individual_thr: float) -> Tensor:
    """Survivors of stage B: key tokens, and tokens that reach at least one of the two thresholds.

    Args:
        rows: (R, T, L) attention of the text tokens after the image, mean over heads; zero at padding.
        key, valid: (R, L) bool.
        global_thr: share of the attention that all text gives to all visual tokens.
        individual_thr: attention of a single text token.

    Returns:
        (R, L) bool.
    """
    rows = rows.masked_fill(~valid[:, None], 0)
    total = rows.sum(1)
    largest = F.pad(rows, (0, 0, 0, 1)).amax(1)  # zero where there is no text
    dropped = (total < global_thr * total.sum(1, keepdim=True)) & (largest < individual_thr)
    return (key | ~dropped) & valid
