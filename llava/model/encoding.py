"""Encoding images without waste: vision blocks that nothing reads are skipped, features of known images are reused.

Touches: the body's `get_image_features` and `get_video_features`, the `forward` of the vision tower's last blocks (only
while features are being made), and the `pooler_output` of what those functions return.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llava.model.families.base import Family
from llava.model.families.tower import PIXELS
from llava.model.reuse import FEATURES, Reuse, digest, size_of
from llava.model.wrapping import Wrappers
from llava.reduction.base import Reduction
from llava.reduction.image import BeforeLLM, Encoder

Original = Callable[..., Any]
Units = list[tuple[bytes, int]]
"""Digest and number of visual tokens of everything that was encoded, in order."""
UNITS, SIZES = "llava_units", "image_sizes"  # attributes of what the feature functions return


@dataclass(frozen=True)
class Features:
    """The features of one image as the model's feature function gave them: a list, or a slice of its tensor."""

    pooled: Any
    kind: type

    @property
    def tensors(self) -> list[Tensor]:
        return [self.pooled] if torch.is_tensor(self.pooled) else list(self.pooled)

    @property
    def n_tokens(self) -> int:
        """Rows of the language model's width."""
        return sum(part.numel() // part.shape[-1] for part in self.tensors)


class Encoding:
    """The vision side of a model while a pruning is at work on it.

    Args:
        method: what it reads of the tower stays.
        model, family: a vision-language model and its adapter.
        reuse: where features are kept; None: images are encoded anew every time.
    """

    def __init__(self, method: Reduction, model: Any, family: Family, reuse: Reuse | None):
        self.method, self.model, self.family, self.reuse = method, model, family, reuse
        self.before = next((part for part in method.parts if isinstance(part, BeforeLLM)), None)
        self.wrappers = Wrappers()
        self.encoding = False
        self.units: dict[str, Units] = {}

    def install(self) -> None:
        """Wrap the feature functions and the blocks that are not needed."""
        body = self.family.body(self.model)
        for kind in PIXELS:
            if hasattr(body, f"get_{kind}_features"):
                self.wrappers.wrap(body, f"get_{kind}_features", partial(self._around_features, kind))
                self._skip_blocks(kind)

    def remove(self) -> None:
        """Put them back."""
        self.wrappers.unwrap_all()
        self.units = {}

    def units_of(self, inputs: dict[str, Any]) -> dict[str, Units]:
        """What was encoded for a call of the body, by kind; kinds whose images are not known are left out."""
        encoded = inputs.get("mm_encoder_outputs") or {}
        told = {kind: getattr(output, UNITS, None) for kind, output in encoded.items()}
        given = {kind: self.units.get(kind) for kind, name in PIXELS.items() if inputs.get(name) is not None}
        return {kind: units for kind, units in {**given, **told}.items() if units is not None}

    # -------------------------------------------------------------------------------------------------- unread blocks

    def _skip_blocks(self, kind: str) -> None:
        """Let the blocks after the last one that is read pass on what they get."""
        blocks, feature_block = self.family.tower_blocks(self.model, kind), self.family.feature_block(self.model, kind)
        if feature_block is None or isinstance(self.before, Encoder):
            return
        read = self.before.tower_layers if self.before is not None else ()
        last = max([feature_block, *(number % len(blocks) for number in read if number is not None)])
        if last + 1 == len(blocks) or any("forward" in vars(block) for block in blocks[last:]):
            return
        given: list[Any] = []
        self.wrappers.wrap(blocks[last], "forward", partial(self._around_last_block, given))
        for block in blocks[last + 1 :]:
            self.wrappers.wrap(block, "forward", partial(self._around_unread_block, given))

    def _around_last_block(self, given: list[Any], original: Original, *args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        given[:] = output[1:] if isinstance(output, tuple) else [None]
        return output

    def _around_unread_block(self, given: list[Any], original: Original, hidden: Tensor, *args: Any, **kw: Any) -> Any:
        if not self.encoding:  # someone runs the tower by itself
            return original(hidden, *args, **kw)
        return hidden if given == [None] else (hidden, *given)

    # ------------------------------------------------------------------------------------------------------- features

    def _around_features(self, kind: str, original: Original, *args: Any, **kwargs: Any) -> Any:
        inputs = dict(kwargs)
        if args:
            inputs |= dict(zip(inspect.signature(original).parameters, args, strict=False))
        sizes = inputs.get(SIZES)
        sizes = sizes.tolist() if torch.is_tensor(sizes) else sizes  # now, before the device has work to be waited for
        keys = self._keys(kind, inputs)
        if keys is None:
            self.units.pop(kind, None)
            output = self._encode(original, inputs)
            if sizes is not None and hasattr(output, "pooler_output"):
                setattr(output, SIZES, sizes)
            return output
        output, features = self._features(kind, original, inputs, keys)
        setattr(output, SIZES, sizes)
        self.units[kind] = [(key[-1], found.n_tokens) for key, found in zip(keys, features, strict=True)]
        setattr(output, UNITS, self.units[kind])
        return output

    def _encode(self, original: Original, inputs: dict[str, Any]) -> Any:
        before, self.encoding = self.encoding, True
        try:
            return original(**inputs)
        finally:
            self.encoding = before

    def _keys(self, kind: str, inputs: dict[str, Any]) -> list[tuple[Any, ...]] | None:
        """What the features of every image are kept under; None if they are not to be kept."""
        reuse = self.reuse
        if reuse is None or self.before is not None or inputs.get("return_dict") is False:
            return None  # what a method before the language model chose of an image is kept instead
        why = cannot_keep(self.family)
        if inputs.get(PIXELS[kind]) is None:
            why = why or f"this version of transformers calls its {kind}s otherwise"
        if why:
            reuse.note(f"Images are encoded anew for every question: {why}.")
            return None
        if torch.is_grad_enabled():
            reuse.note("Nothing is reused while gradients are recorded: use torch.inference_mode() or no_grad().")
            return None
        scope = reuse.scope(self.model)
        return [(kind, *scope, own) for own in digests(self.family, inputs, kind)]

    def _features(
        self, kind: str, original: Original, inputs: dict[str, Any], keys: Sequence[tuple[Any, ...]]
    ) -> tuple[Any, list[Features]]:
        """What the feature function returns for all images, of which only unknown ones are encoded."""
        reuse: Any = self.reuse
        found: dict[tuple[Any, ...], Features] = {}
        missing: dict[tuple[Any, ...], int] = {}
        for number, key in enumerate(keys):
            if key in found or key in missing:
                reuse.again(FEATURES)
                continue
            kept = reuse.get(FEATURES, key)
            if kept is None:
                missing[key] = number
            else:
                found[key] = kept
        if missing:
            wanted = subset(self.family, inputs, kind, list(missing.values())) if len(missing) < len(keys) else inputs
            output = self._encode(original, wanted)
            for key, own in zip(missing, _split(output, len(missing)), strict=True):
                found[key] = own
                if not reuse.put(FEATURES, key, own, size_of(*own.tensors)):
                    reuse.note(
                        f"The features of an image have {size_of(*own.tensors)} bytes, more than the {reuse.limit} "
                        "that may be kept: images are encoded anew for every question. Give a larger limit."
                    )
            if len(missing) == len(keys):
                return output, list(found.values())
        features = [found[key] for key in keys]
        return _joined(features), features


def cannot_keep(family: Family) -> str:
    """Why what is encoded of an image cannot be kept, in words; empty if it can."""
    deep = "features of earlier vision layers belong to every visual token" if family.adds_between_layers else ""
    return family.images_together or deep


def digests(family: Family, inputs: dict[str, Any], kind: str) -> list[bytes]:
    """A hash of everything that decides the features of each image of a batch; waits for the device once."""
    name = PIXELS[kind]
    others = {key: value for key, value in inputs.items() if value is not None and not torch.is_tensor(value)}
    on_host = {key: value.cpu() if torch.is_tensor(value) else value for key, value in inputs.items()}
    found = []
    before, seen = None, b""
    for number in range(family.n_images(on_host, kind)):
        own = family.one_image(on_host, number, kind)
        tensors = {key: value for key, value in own.items() if torch.is_tensor(value) and key != name}
        if before is None or not torch.equal(before, own[name]):  # comparing is much quicker than hashing
            before, seen = own[name], digest(without_filler(own[name]) if tensors else own[name])
        found.append(digest(seen, *sorted(tensors), *(tensors[key] for key in sorted(tensors)), sorted(others.items())))
    return found


def without_filler(pixels: Tensor) -> Tensor:
    """Drop what a batch appends to (1, tiles, ...) pixels of an image with fewer tiles: tiles of zeros.

    How many tiles an image has is a matter of its size, which is hashed too.
    """
    if pixels.ndim < 5:
        return pixels
    used = pixels.flatten(2).any(2).any(0).nonzero()
    return pixels[:, : int(used[-1]) + 1] if len(used) else pixels


def subset(family: Family, inputs: dict[str, Any], kind: str, numbers: Sequence[int]) -> dict[str, Any]:
    """The inputs of some images of a batch."""
    each = [family.one_image(inputs, number, kind) for number in numbers]
    changed = [name for name, value in each[0].items() if value is not inputs[name]]
    return {**inputs, **{name: torch.cat([own[name] for own in each]) for name in changed}}


def _split(output: Any, n_images: int) -> list[Features]:
    """The features of every image, copied, so that none keeps those of its batch alive."""
    pooled = output.pooler_output
    size = len(pooled) // n_images
    parts = [pooled[size * number : size * (number + 1)] for number in range(n_images)]
    if torch.is_tensor(pooled):
        return [Features(part.clone(), type(output)) for part in parts]
    return [Features([one.clone() for one in part], type(output)) for part in parts]


def _joined(features: Sequence[Features]) -> Any:
    """What the feature function would have returned for these images, without what only the tower itself saw."""
    first = features[0]
    output = first.kind()
    if torch.is_tensor(first.pooled):
        output.pooler_output = torch.cat([own.pooled for own in features])
    else:
        output.pooler_output = [part for own in features for part in own.pooled]
    return output
