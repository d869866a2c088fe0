"""ToMe: in every block of the vision tower, merge the most similar pairs of tokens between attention and MLP.

Source: "Token Merging: Your ViT But Faster", arXiv:2210.09461; official code for classifiers (bipartite soft matching,
size-weighted merge, schedule), placed in the blocks of a CLIP tower; there is no official LLaVA version.
Differences from the official code: a schedule that reaches an exact count; zero keys stay zero; ties broken by the
lower index.

How it selects: in every block of the tower whose output counts, between attention and MLP:
1. Tokens at even positions look for the most similar token at an odd position (cosine of keys, mean over heads).
2. The r most similar pairs become one token each: the mean, weighted by the patches each stands for. [CLS] is never
   merged into another.
3. In later blocks a token attracts attention in proportion to its patches.

When not to use it: where reading order matters, as for text in the image, since merging scrambles it (order="spatial"
helps); with flash attention and `prop_attn`, which need another kernel; in towers of few blocks at small budgets, since
each block removes at most half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llava.errors import ConfigurationError
from llava.reduction.blockmerge import BlockMerging, exact_schedule, limited
from llava.reduction.checks import option
from llava.reduction.image import ONE_IMAGE, ImageState, Kept, TowerInfo, TowerLayer
from llava.reduction.registry import register

OFFICIAL, SPATIAL = "official", "spatial"


@dataclass
class Merging:
    """What ToMe remembers during one pass of the tower: T tiles of S tokens.

    Args:
        removals: tokens to remove, by block.
        class_token: whether position 0 is [CLS].
        n_patches: patches of a tile, before any merge.
        places: (T, S, 1) mean number of the patches each token stands for.
        sources: (T, S) the one of them that stayed in its place, [CLS] being -1.
        sizes: (T, S, 1) how many they are; None before the first merge.
    """

    removals: dict[int, int]
    class_token: bool
    n_patches: int
    places: Tensor
    sources: Tensor
    sizes: Tensor | None = None


@register("tome")
@dataclass(frozen=True)
class ToMe(BlockMerging):
    """Merge pairs of tokens with similar keys in every block of the vision tower that counts for the language model.

    Args:
        keep, positions: see `BlockMerging`.
        r: tokens removed per block, instead of `keep`; limited to half of the tokens.
        inflect: how r changes from block to block, in [-1, 1]: 0 constant; -1 falling from 2 r to 0; 1 rising.
        prop_attn: whether attention weighs every token by the patches it stands for. Needs the sdpa or eager kernel.
        order: "official": the order merging leaves, which is scrambled; "spatial": by the mean place of a token's
            patches.

    Raises:
        ConfigurationError: the tower has too few blocks to reach `keep` by halving (on use).
        UnsupportedModel: the tower is no plain vision transformer (on use).
    """

    inflect: float = option(0.0, low=-1)
    prop_attn: bool = True
    order: str = option(OFFICIAL, choices=(OFFICIAL, SPATIAL))

    paper: ClassVar[str] = "arXiv:2210.09461"

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.inflect > 1:
            problems.append(f"inflect={self.inflect!r} is too large: it lies in [-1, 1].")
        return problems

    @property
    def alone(self) -> str:  # type: ignore[override]  # it depends on the budget
        """A count is shared by the tiles of one image, so images are encoded one at a time."""
        return "" if self.r is not None or isinstance(self.keep, float) else ONE_IMAGE

    def encoder_layers(self, tower: TowerInfo) -> tuple[int, ...]:
        return tuple(range(tower.feature_layer + 1))

    def begin(self, tower: TowerInfo) -> Merging:
        n, blocks = tower.side[0] * tower.side[1], len(self.encoder_layers(tower))
        length = n + tower.has_cls
        if self.r is not None:
            removals = limited(parse_schedule(blocks, (self.r, float(self.inflect))), length, int(tower.has_cls))
        else:
            removals = reach(self.kept_per_tile(tower), n, blocks, int(tower.has_cls))
        numbers = torch.arange(-int(tower.has_cls), n, device=tower.device).expand(tower.n_tiles, -1)
        return Merging(dict(enumerate(removals)), tower.has_cls, n, numbers[..., None].float(), numbers)

    def merge(self, memory: Merging, layer: TowerLayer, hidden: Tensor) -> Tensor:
        metric, r = layer.key.mean(1), memory.removals[layer.number]
        merged, sizes, group = match_and_merge(metric, hidden, memory.sizes, r, memory.class_token)
        if group is not None and sizes is not None:
            before = torch.ones_like(memory.places) if memory.sizes is None else memory.sizes.float()
            memory.places = _sum_groups(memory.places * before, group, merged.shape[1]) / sizes.float()
            memory.sizes = sizes
            memory.sources = _stayed(memory.sources, group, merged.shape[1])
        return merged

    def key_bias(self, memory: Merging) -> Tensor | None:
        return None if memory.sizes is None or not self.prop_attn else memory.sizes[..., 0].log()

    def select_image(self, image: ImageState) -> Kept:
        features, memory = image.tiles.features, image.memory  # (T, K, D)
        own = (image.rows, slice(int(memory.class_token), None))
        sources = memory.sources[own]
        if self.order == SPATIAL:
            order = memory.places[own].argsort(dim=1, stable=True)
            features, sources = features.gather(1, order.expand_as(features)), sources.gather(1, order[..., 0])
        n = (memory.n_patches * torch.arange(len(features), device=features.device))[:, None]
        return Kept(values=features.flatten(0, 1), sources=(n + sources).flatten())


def parse_schedule(n_layers: int, r: int | list[int] | tuple[int, float]) -> list[int]:
    """Tokens removed per layer, before the per-layer limit, as the official parser reads `r`.

    Args:
        n_layers: L.
        r: one number for all layers; a list, one number per layer, zeros appended; or a tuple (r, inflect), inflect in
            [-1, 1]: a straight line from r (1 - inflect) to r (1 + inflect).
    """
    if isinstance(r, list):
        return r[:n_layers] + [0] * (n_layers - len(r))
    mean, inflect = r if isinstance(r, tuple) else (r, 0.0)
    low = int(mean * (1 - inflect))
    step = (2 * mean - 2 * low) / (n_layers - 1) if n_layers > 1 else 0.0
    return [int(low + step * layer) for layer in range(n_layers)]


def reach(keep: int, n: int, n_layers: int, protected: int = 1) -> list[int]:
    """The exact schedule that leaves `keep` of n patches.

    Raises:
        ConfigurationError: even halving in every layer leaves more.
    """
    schedule = exact_schedule(n_layers, n + protected, max(n - keep, 0), protected)
    if schedule is None:
        least = n - sum(limited([n] * n_layers, n + protected, protected))
        raise ConfigurationError(
            f"keep={keep} of {n} tokens per tile cannot be reached in {n_layers} layers of the vision tower, of which "
            f"each removes at most half: give at least keep={least}."
        )
    return schedule


def match_and_merge(
    metric: Tensor, tokens: Tensor, sizes: Tensor | None, r: int, class_token: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Merge the r most similar pairs, each token counting as many patches as it stands for.

    Tokens at even positions choose their most similar token at odd positions; the r best pairs merge.

    Args:
        metric: (B, T, d) keys, mean over heads.
        tokens: (B, T, C).
        sizes: (B, T, 1) patches each token stands for; None for one each.
        r: pairs to merge; limited to half of the unprotected tokens.
        class_token: whether position 0 is [CLS], which never merges into another token and stays first.

    Returns:
        tokens (B, T - r, C): unmerged even ones, then all odd ones; their sizes; and group (B, T), the new position of
        each old token. With nothing to merge: tokens and sizes as given, and None.
    """
    r = min(r, (tokens.shape[1] - class_token) // 2)
    if r <= 0:
        return tokens, sizes, None
    norm = metric.norm(dim=-1, keepdim=True)
    unit = metric / torch.where(norm > 0, norm, torch.ones_like(norm))
    even, odd = unit[:, ::2], unit[:, 1::2]
    scores = even @ odd.transpose(1, 2)
    if class_token:
        scores[:, 0] = -torch.inf
    value, partner = scores.max(dim=-1)  # (B, A)
    order = value.sort(dim=1, descending=True, stable=True).indices
    unmerged = order[:, r:]
    if class_token:
        unmerged = unmerged.sort(dim=1).values
    n_unmerged = unmerged.shape[1]

    into = partner + n_unmerged
    into = into.scatter(1, unmerged, torch.arange(n_unmerged, device=order.device).expand_as(unmerged))
    group = torch.empty(metric.shape[:2], dtype=torch.long, device=order.device)
    group[:, ::2] = into
    group[:, 1::2] = torch.arange(n_unmerged, n_unmerged + odd.shape[1], device=order.device)
    if sizes is None:
        sizes = torch.ones_like(tokens[..., :1])
    length = tokens.shape[1] - r
    mass = _sum_groups(sizes, group, length)
    return _sum_groups(tokens * sizes, group, length) / mass, mass, group


def _stayed(numbers: Tensor, group: Tensor, length: int) -> Tensor:
    """The number of each new token's own position: odd ones take others in, even ones are merged or stay alone."""
    out = numbers.new_empty(len(numbers), length)
    for parity in (0, 1):
        out.scatter_(1, group[:, parity::2], numbers[:, parity::2])
    return out


def _sum_groups(values: Tensor, group: Tensor, length: int) -> Tensor:
    """Add up (B, T, C) values by group (B, T) -> (B, length, C)."""
    out = values.new_zeros(values.shape[0], length, values.shape[2])
    return out.scatter_add_(1, group[..., None].expand_as(values), values)
