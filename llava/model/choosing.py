"""Encoding the images of a batch and asking a method what goes on of each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llava.errors import BadInput, UnsupportedModel
from llava.model.families.base import Family
from llava.model.families.tower import PIXELS
from llava.model.layout import Layout
from llava.model.stopwatch import Stopwatch
from llava.model.vision import TowerReader, split_features
from llava.reduction.base import ORIGINAL
from llava.reduction.image import TOWER, BeforeLLM, Encoder, ImageState, Kept, Tiles

ENCODED = "mm_encoder_outputs"


OLD_NAME = "pixel_values_images"  # Video-LLaVA's in transformers 5.17


def has_images(inputs: dict[str, Any]) -> bool:
    """Whether the arguments of a model call bring images or videos, encoded or not.

    Raises:
        UnsupportedModel: images under a name that only older versions of transformers know.
    """
    if inputs.get(OLD_NAME) is not None:
        raise UnsupportedModel(
            f"This version of transformers calls Video-LLaVA's images {OLD_NAME}, which methods that act before the "
            "language model do not know. Type `pip install -U transformers`, or take dart or fastv."
        )
    encoded = inputs.get(ENCODED) or {}
    return any(inputs.get(name) is not None or encoded.get(kind) is not None for kind, name in PIXELS.items())


class Choosing:
    """The images of one call.

    Args:
        method: which visual tokens go on.
        model, family: a vision-language model and its adapter.
        inputs: the model's arguments.
        layout: the prompt.
        positions: of the prompt; their dimensions matter.
    """

    def __init__(
        self, method: BeforeLLM, model: Any, family: Family, inputs: dict[str, Any], layout: Layout, positions: Tensor
    ):
        self.method, self.model, self.family, self.inputs, self.layout = method, model, family, inputs, layout
        self.several_axes = positions.ndim > 2
        self.watch = Stopwatch(model.device)
        kinds = [kind for kind, name in PIXELS.items() if inputs.get(name) is not None]
        self.tilings = {kind: family.tilings(model, inputs, kind) for kind in kinds}
        self.readers = {kind: TowerReader(method, model, family, self.watch, kind) for kind in kinds}

    def keeps_all(self) -> bool:
        """Whether every image of the batch goes on whole."""
        return all(self._whole(*each) for each in self._images())

    def _images(self) -> Iterator[tuple[int, int, int, str, int]]:
        """(sample, number in the sample, visual tokens, kind, tiles) of every image, in the order of the prompts."""
        tilings = {kind: iter(each or ()) for kind, each in self.tilings.items()}
        for row, lengths in enumerate(self.layout.visual):
            for number, n_visual in enumerate(lengths):
                kind = self._kind(row, number)
                tiling = next(tilings.get(kind, iter(())), None)
                yield row, number, n_visual, kind, 1 if tiling is None else tiling.n_tiles

    def _whole(self, row: int, number: int, n_visual: int, kind: str, n_tiles: int) -> bool:
        return self.method.keeps_all(n_visual, n_tiles)

    def run(self) -> tuple[list[list[Kept]], dict[str, Any]]:
        """Encode and choose.

        Returns:
            What goes on of every image, per sample; and encoder outputs by kind, with the features that go on in them.

        Raises:
            BadInput: images and placeholders do not fit, or the method returned something else than a `Kept`.
        """
        outputs, images, places = {}, {}, list(self._images())
        for kind, name in PIXELS.items():
            given = (self.inputs.get(ENCODED) or {}).get(kind)
            lengths = [n_visual for _, _, n_visual, own, _ in places if own == kind]
            if given is not None:
                outputs[kind], images[kind] = self._given(given, lengths, kind)
            elif self.inputs.get(name) is not None:
                outputs[kind], images[kind] = self.readers[kind].encode(self.inputs, self.tilings[kind], lengths)
        waiting = {kind: iter(states) for kind, states in images.items()}
        seeds = iter(self.layout.seeds(together=False))
        chosen: dict[str, list[tuple[ImageState, Kept]]] = {kind: [] for kind in outputs}
        kept: list[list[Kept]] = [[] for _ in self.layout.visual]
        for each in places:
            row, _, n_visual, kind, _ = each
            image = self._next(waiting, kind)
            whole = self._whole(*each) and image.n_visual == n_visual
            kept[row].append(self._choose(replace(image, seed=next(seeds)), whole))
            chosen[kind].append((image, kept[row][-1]))
        if any(True for states in waiting.values() for _ in states):
            raise BadInput("There are more images than places for them in the prompts. Give every image its place.")
        return kept, {kind: self._filled(outputs[kind], chosen[kind]) for kind in outputs}

    def _given(self, output: Any, lengths: list[int], kind: str) -> tuple[Any, list[ImageState]]:
        """Images that the caller has encoded already: nothing of the tower can be seen."""
        if self.method.tower_layers or isinstance(self.method, Encoder):
            raise BadInput(
                f"Method {self.method.name!r} looks into the vision tower, but the images are given encoded "
                f"({ENCODED}=). Give pixel_values= instead."
            )
        output = copy.copy(output)
        own = split_features(self.family.features(output), lengths, kind)
        return output, [ImageState(features, Tiles(features[None])) for features in own]

    def _kind(self, row: int, number: int) -> str:
        ids = self.layout.host_ids[row][self.layout.host_image[row] == number]
        kinds = {getattr(self.model.config, f"{kind}_token_id", None): kind for kind in PIXELS}
        return kinds.get(int(ids[0]), next(iter(PIXELS)))

    def _next(self, waiting: dict[str, Iterator[ImageState]], kind: str) -> ImageState:
        image = next(waiting.get(kind, iter(())), None)
        if image is None:
            raise BadInput(f"The prompts have a place for another {kind}, but no more {kind}s are given.")
        return image

    def _choose(self, image: ImageState, whole: bool) -> Kept:
        if whole:
            return Kept(torch.arange(image.n_visual, device=image.features.device))
        with self.watch.running():
            kept = self.method.select_image(image)
        self._refuse(kept)
        if kept.values is not None and kept.space == TOWER:
            kept = replace(kept, values=image.project(kept.values))
        if kept.sources is not None and image.tiles.source is not None:
            kept = replace(kept, sources=_offsets(kept.sources, image.tiles.source))
        return kept

    def _filled(self, output: Any, chosen: list[tuple[ImageState, Kept]]) -> Any:
        features: list[Tensor] = []
        rows: list[Tensor] = []
        for image, kept in chosen:
            values = image.features[kept.indices] if kept.values is None else kept.values
            features.append(values.to(image.features.dtype))
            if kept.values is None and kept.indices is not None:
                rows.append(kept.indices)
        return self.family.with_features(output, features, rows if len(rows) == len(features) else None)

    def _refuse(self, kept: Any) -> None:
        name = self.method.name
        if not isinstance(kept, Kept) or (kept.indices is None and kept.values is None):
            raise BadInput(
                f"Method {name!r}: select_image returned {type(kept).__name__}; it must return Kept(indices) or "
                "Kept(values=...)."
            )
        if kept.indices is not None and (kept.indices.ndim != 1 or kept.indices.dtype != torch.long):
            raise BadInput(
                f"Method {name!r}: select_image returned indices of shape {tuple(kept.indices.shape)}, "
                f"{kept.indices.dtype}; they must be a list of ascending offsets (K,), torch.long."
            )
        if kept.indices is not None and kept.values is not None and len(kept.indices) != len(kept.values):
            raise BadInput(
                f"Method {name!r}: select_image returned {len(kept.indices)} indices for {len(kept.values)} values."
            )
        if kept.count == 0:
            raise BadInput(f"Method {name!r} kept nothing of an image: at least one token of every image must go on.")
        if kept.indices is None and self.several_axes:
            raise UnsupportedModel(
                f"Method {name!r} merges tokens, which have no place of their own then; visual tokens of "
                f"{type(self.model).__name__} have a time, a row and a column. Use a method that only chooses tokens."
            )
        if kept.indices is None and self.method.positions == ORIGINAL:
            raise BadInput(
                f"Method {name!r} merges tokens, which have no place of their own then: positions='{ORIGINAL}' cannot "
                "be used. Give positions='renumbered'."
            )


def _offsets(sources: Tensor, all_sources: Tensor) -> Tensor:
    """Tokens of tiles (tile * N + number, -1: none) -> their offsets among the image's tokens in the prompt, or -1.

    Args:
        sources: (K,).
        all_sources: (L,) those of the image's tokens, -1 at newlines.
    """
    same = sources[:, None] == all_sources
    return torch.where(same.any(1) & (sources >= 0), same.int().argmax(1), -1)
