"""Encoding the images of a batch and asking a method what goes on of each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llava.errors import BadInput, UnsupportedModel
from llava.model.chosen import Chosen
from llava.model.encoding import Units, cannot_keep
from llava.model.families.base import Family
from llava.model.families.tower import PIXELS
from llava.model.layout import Layout
from llava.model.reuse import Reuse
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
        scores: whether to note what the method ranks the tokens by.
        reuse: where what was chosen of an image is kept; None: nowhere.
    """

    def __init__(
        self,
        method: BeforeLLM,
        model: Any,
        family: Family,
        inputs: dict[str, Any],
        layout: Layout,
        positions: Tensor,
        scores: bool = False,
        reuse: Reuse | None = None,
    ):
        self.scores, self.reuse = scores, reuse
        self.units: dict[str, Units] = {}
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
        chosen: dict[str, Chosen] = {}
        for kind, name in PIXELS.items():
            given = (self.inputs.get(ENCODED) or {}).get(kind)
            lengths = [n_visual for _, _, n_visual, own, _ in places if own == kind]
            if given is not None:
                outputs[kind], images[kind] = self._given(given, lengths, kind)
            elif self.inputs.get(name) is not None:
                known = self._chosen_before(kind, lengths)
                chosen |= {} if known is None else {kind: known}
                outputs[kind], images[kind] = self._encoded(kind, lengths, known)
        waiting = {kind: iter(states) for kind, states in images.items()}
        seeds = iter(self.layout.seeds(together=False))
        going_on: dict[str, list[tuple[Kept, Tensor]]] = {kind: [] for kind in outputs}
        kept: list[list[Kept]] = [[] for _ in self.layout.visual]
        for each in places:
            row, _, n_visual, kind, _ = each
            seed, known, number = next(seeds), chosen.get(kind), len(going_on.get(kind, ()))
            choice = None if known is None else known.known(number)
            if choice is not None:
                own, features = choice.kept, choice.features
            else:
                image = self._next(waiting, kind)
                whole = self._whole(*each) and image.n_visual == n_visual
                own = self._choose(replace(image, seed=seed), whole)
                features = _features(image, own)
                if known is not None:
                    known.keep(number, own, features, outputs[kind])
            kept[row].append(own)
            going_on[kind].append((own, features))
        if any(True for states in waiting.values() for _ in states):
            raise BadInput("There are more images than places for them in the prompts. Give every image its place.")
        self.units = {kind: [known.unit(n) for n in range(len(known.keys))] for kind, known in chosen.items()}
        return kept, {kind: self._filled(outputs[kind], going_on[kind]) for kind in outputs}

    def _chosen_before(self, kind: str, lengths: list[int]) -> Chosen | None:
        """What was chosen of the images for an earlier question; None if that cannot be known."""
        method, family, reuse = self.method, self.family, self.reuse
        if reuse is None or method.depends_on_question or torch.is_grad_enabled():
            return None
        why = cannot_keep(family)
        if why:
            reuse.note(f"What is chosen of an image is not kept: {why}.")
            return None
        known = Chosen(reuse, method, self.model, family, self.inputs, kind, lengths, self.scores)
        if not known.matches:  # or the images and the prompts do not fit: that is told where they are encoded
            reuse.note("What is chosen of an image is not kept: its tiles are encoded as images of their own.")
            return None
        return known

    def _encoded(self, kind: str, lengths: list[int], known: Chosen | None) -> tuple[Any, list[ImageState]]:
        """Encode the images of a kind, or those of which nothing is known."""
        reader, tilings = self.readers[kind], self.tilings[kind]
        if known is None:
            return reader.encode(self.inputs, tilings, lengths)
        missing = known.missing
        if not missing:
            choice: Any = known.known(0)
            return choice.template(), []
        own_tilings = None if tilings is None else [tilings[number] for number in missing]
        return reader.encode(known.inputs_of_missing(), own_tilings, [lengths[number] for number in missing])

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
        if self.scores:
            kept = replace(kept, scores=_in_prompt(self.method.scores(image), image))
        if kept.values is not None and kept.space == TOWER:
            kept = replace(kept, values=image.project(kept.values))
        if kept.sources is not None and image.tiles.source is not None:
            kept = replace(kept, sources=_offsets(kept.sources, image.tiles.source))
        return kept

    def _filled(self, output: Any, going_on: list[tuple[Kept, Tensor]]) -> Any:
        rows = [kept.indices for kept, _ in going_on if kept.values is None and kept.indices is not None]
        features = [features for _, features in going_on]
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


def _features(image: ImageState, kept: Kept) -> Tensor:
    """(K, D) what goes on of an image."""
    return (image.features[kept.indices] if kept.values is None else kept.values).to(image.features.dtype)


def _in_prompt(scores: Tensor | None, image: ImageState) -> Tensor | None:
    """(T, N) scores of the tokens of tiles -> (L,) of the image's tokens in the prompt, NaN at newlines."""
    if scores is None:
        return None
    flat, source = scores.float().flatten(), image.tiles.source
    if source is None:
        return flat if len(flat) == image.n_visual else None
    return torch.where(source >= 0, flat[source.clamp_min(0)], torch.nan)


def _offsets(sources: Tensor, all_sources: Tensor) -> Tensor:
    """Tokens of tiles (tile * N + number, -1: none) -> their offsets among the image's tokens in the prompt, or -1.

    Args:
        sources: (K,).
        all_sources: (L,) those of the image's tokens, -1 at newlines.
    """
    same = sources[:, None] == all_sources
    return torch.where(same.any(1) & (sources >= 0), same.int().argmax(1), -1)
