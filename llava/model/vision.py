"""Encoding images while reading blocks of the vision tower, or merging tokens in them.

No attention map is asked for: blocks that are read hand over their queries and keys, whatever kernel they run with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llava.errors import BadInput, UnsupportedModel
from llava.model import towerguards
from llava.model.families.base import Family
from llava.model.families.tower import IMAGE, Tiling
from llava.model.stopwatch import Stopwatch
from llava.model.tap import Attention, tapped
from llava.model.wrapping import Wrappers
from llava.reduction.image import (
    AFTER,
    ONE_IMAGE,
    ONE_TILE,
    BeforeLLM,
    Encoder,
    ImageState,
    Tiles,
    TowerInfo,
    TowerLayer,
)

Original = Callable[..., Any]


@dataclass
class Run:
    """One call of the family's `encode`.

    Args:
        tilings: of the images encoded in it; None: one tile each.
        blocks: what was read of every block, one entry per batch of tiles that went through together.
        projected: what the projector gave.
        memories: what the method remembers, one per batch of tiles.
        merging: blocks in which the method merges.
        size: (height, width) in pixels the images were made smaller to; None: they were not.
    """

    tilings: Sequence[Tiling] | None
    blocks: dict[int, list[TowerLayer]] = field(default_factory=dict)
    projected: list[Tensor] = field(default_factory=list)
    memories: list[Any] = field(default_factory=list)
    merging: tuple[int, ...] = ()
    size: tuple[int, int] | None = None

    def tiles_per_image(self, tile: int) -> int:
        """Tiles of the image that a tile of this run belongs to."""
        for tiling in self.tilings or ():
            if tile < tiling.n_tiles:
                return tiling.n_tiles
            tile -= tiling.n_tiles
        return 1


class TowerReader:
    """The vision tower of a model, as a method wants to use it.

    Args:
        method: what it reads or merges.
        model, family: a vision-language model and its adapter.
        kind: "image" or "video".
        stopwatch: runs while the method merges.

    Raises:
        UnsupportedModel: the tower has not what the method needs; the message says what does without.
    """

    def __init__(self, method: BeforeLLM, model: Any, family: Family, stopwatch: Stopwatch, kind: str = IMAGE):
        towerguards.refuse(method, model, family, kind)
        self.method, self.model, self.family, self.kind, self.stopwatch = method, model, family, kind, stopwatch
        self.tower, self.blocks = family.tower(model, kind), family.tower_blocks(model, kind)
        self.feature_block: Any = family.feature_block(model, kind)
        self.has_cls = family.has_cls(model, kind)
        self.merges = isinstance(method, Encoder)
        self.merger: Any = method
        self.side: Any = family.tile_side(model, kind)
        self.read = self._blocks_read()
        self.run = Run(None)

    def encode(
        self, inputs: dict[str, Any], tilings: Sequence[Tiling] | None, lengths: Sequence[int]
    ) -> tuple[Any, list[ImageState]]:
        """Encode all images of a batch.

        Args:
            inputs: the model's arguments, images included.
            tilings: how every image was cut into tiles; None: every image is one tile.
            lengths: visual tokens the prompts have a place for, per image.

        Returns:
            What the body's feature function returned, and the state of every image.

        Raises:
            BadInput: images and places do not fit together.
        """
        if not self._one_by_one(tilings):
            return self._encode(inputs, tilings, lengths)
        runs = []
        for number in range(self.family.n_images(inputs, self.kind)):
            own = None if tilings is None else tilings[number : number + 1]
            runs.append(self._encode(self.family.one_image(inputs, number, self.kind), own, lengths))
        return runs[0][0], [state for _, states in runs for state in states]

    def _one_by_one(self, tilings: Sequence[Tiling] | None) -> bool:
        """Whether every image is encoded by itself: the method wants it, or what is left of a tile may differ."""
        alone = self.merger.alone if isinstance(self.method, Encoder) else ""
        return alone == ONE_IMAGE or (alone == ONE_TILE and len({tiling.n_tiles for tiling in tilings or ()}) > 1)

    # ------------------------------------------------------------------------------------------------------- one run

    def _encode(
        self, inputs: dict[str, Any], tilings: Sequence[Tiling] | None, lengths: Sequence[int]
    ) -> tuple[Any, list[ImageState]]:
        self.run = run = Run(tilings)
        wrappers = Wrappers()
        try:
            self._wrap(wrappers)
            output = self.family.encode(self.model, inputs, self.kind)
        finally:
            wrappers.unwrap_all()
        features = self.family.features(output)
        if not (self.merges or self.method.resizes):
            features = split_features(features, lengths, self.kind)
        projected = torch.cat(run.projected) if run.projected else None
        layers = {number: _joined(parts) for number, parts in run.blocks.items()}
        states, first = [], 0
        for own, tiling in zip(features, tilings or [Tiling()] * len(features), strict=True):
            rows = slice(first, first + tiling.n_tiles)
            first = rows.stop
            states.append(self._state(own, tiling, rows, projected, layers))
        return output, states

    def _state(
        self, features: Tensor, tiling: Tiling, rows: slice, projected: Tensor | None, layers: dict[int, TowerLayer]
    ) -> ImageState:
        own = {number: layer.of(rows) for number, layer in layers.items()}
        memories = self.run.memories
        whole = self.run.size is None and not self.merges
        return ImageState(
            features=features,
            tiles=Tiles(
                features=features[None] if projected is None else projected[rows],
                tower=own[self.feature_block].output if self.feature_block in own else None,
                side=self.side if whole else None,
                grid=tiling.grid,
                size=tiling.size,
                newline=tiling.newline,
                source=tiling.source,
            ),
            layers=own,
            project=self.project,
            memory=memories[rows] if len(memories) > 1 else next(iter(memories), None),
            rows=rows,
            feature_layer=self.feature_block,
            n_layers=len(self.blocks),
        )

    def project(self, hidden: Tensor) -> Tensor:
        """Tower width to the language model's width: (..., C) -> (..., D).

        Raises:
            UnsupportedModel: the model has no projector that works token by token.
        """
        projector = self.family.projector(self.model)
        if projector is None:
            raise UnsupportedModel(
                f"Method {self.method.name!r} merges tokens before the projector; {type(self.model).__name__} has none "
                "that works token by token."
            )
        return projector(hidden.to(next(projector.parameters()).dtype))

    def _blocks_read(self) -> set[int]:
        """Blocks to be read, 0-based; the one that feeds the projector is among them as soon as any is."""
        wanted, n_blocks = self.method.tower_layers, len(self.blocks)
        towerguards.refuse_blocks(self.method, wanted, n_blocks)
        numbers = {number for number in (*wanted, self.feature_block) if number is not None}
        return {number % n_blocks for number in numbers} if wanted else set()

    # --------------------------------------------------------------------------------------------------- the wrappers

    def _wrap(self, wrappers: Wrappers) -> None:
        if self.method.resizes:
            wrappers.wrap(self.tower, "forward", self._around_resized_tower)
        elif self.merges:
            wrappers.wrap(self.tower, "forward", self._around_merging_tower)
        for number, block in enumerate(self.blocks):
            if self.merges:
                wrappers.wrap(block, "forward", partial(self._around_merging_block, number, block))
            elif number in self.read:
                wrappers.wrap(block, "forward", partial(self._around_block, number, block))
        if self.family.packing:
            wrappers.wrap(self.family.projector(self.model), "forward", self._around_projector)
            if self.merges:
                wrappers.wrap(self.family.body(self.model), self.family.packing, self._around_packing)

    def _around_resized_tower(self, original: Original, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        patch = self.tower.config.patch_size
        rows, columns = self.method.resized(pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        self.run.size = size = (rows * patch, columns * patch)
        smaller = nn.functional.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
        return original(smaller.to(pixels.dtype), *args, **{**kwargs, "interpolate_pos_encoding": True})

    def _around_merging_tower(self, original: Original, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        run, outputs = self.run, []
        for number, part in enumerate(pixels.split(1) if self.merger.alone == ONE_TILE else [pixels]):
            info = TowerInfo(
                n_layers=len(self.blocks),
                feature_layer=self.feature_block,
                n_tiles=len(part),
                tiles_per_image=run.tiles_per_image(number),
                side=self.side,
                has_cls=self.has_cls,
                device=pixels.device,
            )
            run.merging = self.merger.encoder_layers(info)
            run.memories.append(self.merger.begin(info))
            outputs.append(original(part, *args, **kwargs))
        return outputs[0] if len(outputs) == 1 else _joined_outputs(outputs)

    def _around_block(
        self, number: int, block: Any, original: Original, hidden: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        seen: list[TowerLayer] = []
        with tapped(block.self_attn, lambda attention: seen.append(self._layer(number, attention))):
            output = original(hidden, *args, **kwargs)
        hidden = output[0] if isinstance(output, tuple) else output
        self.run.blocks.setdefault(number, []).append(replace(seen[0], output=hidden))
        return output

    def _around_merging_block(
        self, number: int, block: Any, original: Original, hidden: Tensor, mask: Any = None, **kwargs: Any
    ) -> Any:
        """A block that normalises first, with a merge after its attention or after the whole of it."""
        run = self.run
        memory, merging = run.memories[-1], number in run.merging
        bias = self.merger.key_bias(memory)
        if bias is not None:
            towerguards.refuse_flash(self.method, block)
            mask = bias[:, None, None, :].to(hidden.dtype)
        between = merging and self.merger.place != AFTER
        seen: list[TowerLayer] = []
        tap = tapped(block.self_attn, lambda attention: seen.append(self._layer(number, attention)))
        with tap if between or number in self.read else nullcontext():
            if between:
                attended = block.self_attn(hidden_states=block.layer_norm1(hidden), attention_mask=mask, **kwargs)[0]
                with self.stopwatch.running():
                    hidden = self.merger.merge(memory, seen[0], hidden + attended)
                hidden = hidden + block.mlp(block.layer_norm2(hidden))
            else:
                hidden = original(hidden, mask, **kwargs)
        if merging and not between:
            with self.stopwatch.running():
                hidden = self.merger.merge(memory, seen[0] if seen else _unread(number, hidden, self.has_cls), hidden)
        if number in self.read:
            run.blocks.setdefault(number, []).append(replace(seen[0], output=hidden))
        return hidden

    def _around_projector(self, original: Original, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = original(hidden, *args, **kwargs)
        self.run.projected.append(output)
        return output

    def _around_packing(self, original: Original, features: Any, *args: Any, **kwargs: Any) -> Any:
        """Merged tokens have no place on a canvas: tiles follow each other, without newlines."""
        flat = [tiles.flatten(0, 1) for tiles in features]
        return flat, torch.tensor([len(tokens) for tokens in flat])

    def _layer(self, number: int, attention: Attention) -> TowerLayer:
        return TowerLayer(number, attention.query, attention.key, attention.scaling, self.has_cls)


def split_features(parts: Sequence[Tensor], lengths: Sequence[int], kind: str) -> list[Tensor]:
    """The features of every image, from those of a batch in whatever pieces the model makes them.

    Args:
        parts: (n, D) each, in the order of the prompts.
        lengths: visual tokens the prompts have a place for, per image.
        kind: "image" or "video", for the message.

    Raises:
        BadInput: the sums differ.
    """
    given, places = sum(map(len, parts)), sum(lengths)
    if given != places:
        raise BadInput(
            f"The {kind}s have {given} visual tokens, the prompts have places for {places}. Make prompts and {kind}s "
            "together, with the processor of this model."
        )
    return list(torch.cat(list(parts)).split(list(lengths)))


def _unread(number: int, hidden: Tensor, has_cls: bool) -> TowerLayer:
    nothing = hidden.new_empty(0)
    return TowerLayer(number, nothing, nothing, 1.0, has_cls)


def _joined(parts: list[TowerLayer]) -> TowerLayer:
    if len(parts) == 1:
        return parts[0]
    query, key, output = (torch.cat([getattr(part, name) for part in parts]) for name in ("query", "key", "output"))
    return replace(parts[0], query=query, key=key, output=output)


def _joined_outputs(outputs: list[Any]) -> Any:
    """One output of the tower from those of its parts."""

    def join(values: list[Any]) -> Any:
        if torch.is_tensor(values[0]):
            return torch.cat(values)
        if isinstance(values[0], (list, tuple)):
            return tuple(join(list(column)) for column in zip(*values, strict=True))
        return values[0]

    first = outputs[0]
    return type(first)(**{name: join([output[name] for output in outputs]) for name in first})
