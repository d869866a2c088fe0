"""Choosing visual tokens before the language model: images are encoded first, and the model gets a shorter prompt.

`generate` and `forward` are wrapped on the instance. To everything behind them (caches, kernels, beams) the prompt is
an ordinary, shorter one; the sequences that `generate` returns begin with the caller's own prompt again. Nothing of a
model's forward is copied.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llava.model import guards, towerguards
from llava.model.choosing import ENCODED, Choosing, has_images
from llava.model.families.base import Family
from llava.model.families.tower import IMAGE, PIXELS
from llava.model.layout import Layout
from llava.model.masks import prompt_padding
from llava.model.shortprompt import TOKEN_TYPES, ShortPrompt, shorten
from llava.model.surgery import STATE
from llava.model.wrapping import Wrappers
from llava.reduction.base import ORIGINAL
from llava.reduction.image import BeforeLLM

Original = Callable[..., Any]


class Shortening:
    """A method at work before the language model of one model.

    Args:
        method: which visual tokens go on.
        model: a vision-language model of transformers.
        family: its adapter.

    Raises:
        UnsupportedModel: the vision tower has not what the method needs.
    """

    def __init__(self, method: BeforeLLM, model: Any, family: Family):
        self.method, self.model, self.family = method, model, family
        self.wrappers = Wrappers()
        self.running = threading.local()
        self.reuse: Any = None  # keeps what was chosen of an image
        self.scores = False  # whether to note what the method ranks the tokens by
        # Older versions of transformers take no features: the model asks for them itself, and gets the chosen ones.
        takes_features = ENCODED in inspect.signature(type(model).forward).parameters
        self.encodes_itself = not (takes_features and hasattr(model, "_supports_mm_encoder_outputs"))
        towerguards.refuse(method, model, family, IMAGE)

    def install(self) -> None:
        """Wrap the model's `generate` and `forward`."""
        self.wrappers.wrap(self.model, "generate", self._around_generate)
        self.wrappers.wrap(self.model, "forward", self._around_forward)
        body = self.family.body(self.model)
        for kind in PIXELS if self.encodes_itself else ():
            if hasattr(body, f"get_{kind}_features"):
                self.wrappers.wrap(body, f"get_{kind}_features", partial(self._around_features, kind))

    def remove(self) -> None:
        """Put them back."""
        self.wrappers.unwrap_all()

    def current(self) -> ShortPrompt | None:
        """The short prompt that is being run now; None while a prompt is run as it is."""
        return getattr(self.running, "short", None)

    @contextmanager
    def _running(self, short: ShortPrompt, generating: bool) -> Iterator[None]:
        before, self.running.short = self.current(), short
        short.generating = generating
        try:
            yield
        finally:
            self.running.short = before
            short.generating = False

    # --------------------------------------------------------------------------------------------- the model's calls

    @torch.no_grad()
    def _around_generate(self, original: Original, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        kwargs = _named(original, (inputs, *args), kwargs)
        given = kwargs.pop("inputs")
        ids = kwargs.get("input_ids") if given is None else given
        if ids is None:
            return original(**kwargs)
        kwargs["input_ids"] = ids
        short = prompt_of(kwargs.get("past_key_values"))
        if short is not None:
            call = self._continued_generation(short, kwargs)
        else:
            config = kwargs.get("generation_config") or self.model.generation_config
            short, call = self._shortened(kwargs, generating=True) if has_images(kwargs) else (None, kwargs)
            if short is None:
                return original(**kwargs)
            guards.refuse_chunks(config)
            guards.refuse_chunk_size(kwargs.get("prefill_chunk_size"))
        n_short = call["input_ids"].shape[1]
        call.update(self._total_lengths(kwargs, ids.shape[1], n_short))
        with self._running(short, generating=True):
            return _restored(original(**call), ids, n_short)

    def _around_forward(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        kwargs = _named(original, args, kwargs)
        ids = kwargs.get("input_ids")
        short = prompt_of(kwargs.get("past_key_values"), 0 if ids is None else ids.shape[1])
        if short is not None:
            return original(**(kwargs if short.generating else self._continued_forward(short, kwargs)))
        if self.current() is not None:
            self.running.rows = 0 if ids is None else len(ids)
            return original(**_with_mask(kwargs))
        if ids is None or not has_images(kwargs):
            return original(**kwargs)
        short, call = self._shortened(kwargs, generating=False)
        if short is None:
            return original(**kwargs)
        guards.refuse_call(kwargs, continues=False)
        with self._running(short, generating=False):
            self.running.rows = len(ids)
            return original(**call)

    def _around_features(self, kind: str, original: Original, *args: Any, **kwargs: Any) -> Any:
        """The chosen features, instead of those of all tokens, where the model encodes the images itself."""
        short = self.current()
        if short is None or kind not in short.encoded:
            return original(*args, **kwargs)
        output, times = copy.copy(short.encoded[kind]), self.running.rows // len(short.kept)
        if times == 1:
            return output
        places = short.ids == getattr(self.model.config, f"{kind}_token_id")
        samples = torch.cat(self.family.features(output)).split(places.sum(1).tolist())
        return self.family.with_features(output, [own for own in samples for _ in range(times)], None)

    # ------------------------------------------------------------------------------------------------- a new prompt

    def _shortened(self, kwargs: dict[str, Any], generating: bool) -> tuple[ShortPrompt | None, dict[str, Any]]:
        """The short prompt and the arguments to call with; None if every image is kept whole."""
        model, family, ids = self.model, self.family, kwargs["input_ids"]
        mask = kwargs.get("attention_mask")
        if mask is None and generating:
            mask = self._mask_from_ids(ids)
        placeholders = family.placeholders(model)
        lengths = family.image_lengths(model, kwargs)
        newlines = family.newlines(model, kwargs)
        layout = Layout.read(ids, prompt_padding(mask, ids.shape[1]), placeholders, lengths, newlines)
        if not layout.has_images:
            return None, kwargs
        cache = kwargs.get("past_key_values")
        if cache is not None and int(cache.get_seq_length()) > 0:
            guards.refuse_new_images(kwargs, placeholders)
        whole = kwargs.get("position_ids")
        if whole is None and generating:
            whole = model._prepare_position_ids_for_generation(ids, {**kwargs, "attention_mask": mask})
        elif whole is None:
            whole = family.positions(model, kwargs)
        choosing = Choosing(self.method, model, family, kwargs, layout, whole, self.scores, self.reuse)
        if choosing.keeps_all():
            return None, kwargs
        kept, encoded = choosing.run()
        pad = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
        short = shorten(layout, ids, kept, whole, self.method.positions == ORIGINAL, pad, choosing.watch)
        short.units = choosing.units
        return short, self._call(short, encoded, kwargs)

    def _call(self, short: ShortPrompt, encoded: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        call = {**kwargs, "input_ids": short.ids, "attention_mask": short.mask, "position_ids": short.positions}
        call |= {name: call[name].gather(1, short.source) for name in TOKEN_TYPES if call.get(name) is not None}
        if self.encodes_itself:
            short.encoded = encoded
            return call
        vision = self.family.vision_inputs(self.model)
        return {**{name: value for name, value in call.items() if name not in vision}, ENCODED: encoded}

    def _mask_from_ids(self, ids: Tensor) -> Tensor:
        """The mask that generate() supposes where none is given: padding, if its id cannot mean anything else."""
        config = self.model.generation_config
        pad, end = config.pad_token_id, config.eos_token_id
        ends = end if isinstance(end, (list, tuple)) else [end]
        return torch.ones_like(ids) if pad is None or pad in ends else (ids != pad).long()

    def _total_lengths(self, kwargs: dict[str, Any], n_whole: int, n_short: int) -> dict[str, int]:
        """Limits on prompt and answer together, for the short prompt."""
        config = kwargs.get("generation_config") or self.model.generation_config
        shifted = {}
        for name in ("max_length", "min_length"):
            value = kwargs.get(name, getattr(config, name, None))
            if value is not None and value > n_whole:
                shifted[name] = value - n_whole + n_short
        return shifted

    # ---------------------------------------------------------------------------------------------- what follows one

    def _continued_generation(self, short: ShortPrompt, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of generate() for a conversation that goes on on a cache with a short prompt."""
        n_whole, n_short = short.n_columns
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        call = self._without_images(short, kwargs)
        if mask is not None:
            call["attention_mask"] = short.continued_mask(mask)
            if mask.shape[1] != ids.shape[1]:  # only the new tokens were given
                return call
        n_new = ids.shape[1] - n_whole
        call["input_ids"] = torch.cat([short.ids, ids[:, n_whole:]], dim=1)
        if mask is None:
            call["attention_mask"] = short.continued_mask(torch.ones_like(ids))
        call["position_ids"] = torch.cat([short.positions, short.at_end(n_new, n_short)], dim=-1)
        for name in TOKEN_TYPES:
            if call.get(name) is not None:
                types = call[name]
                call[name] = torch.cat([types.gather(1, short.source), types[:, n_whole:]], dim=1)
        return call

    def _continued_forward(self, short: ShortPrompt, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of forward() for tokens after a short prompt, given as if the prompt were whole."""
        call = self._without_images(short, kwargs)
        mask, positions, ids = kwargs.get("attention_mask"), kwargs.get("position_ids"), kwargs["input_ids"]
        seen = kwargs["past_key_values"].get_seq_length()
        if mask is not None and mask.ndim == 2:
            call["attention_mask"] = short.continued_mask(mask)
        elif mask is None and short.has_filler:
            after = short.mask.new_ones(len(short.mask), int(seen) + ids.shape[1] - short.mask.shape[1])
            call["attention_mask"] = torch.cat([short.mask, after], dim=1)
        if positions is None:
            call["position_ids"] = short.at_end(ids.shape[1], seen)
        elif positions.ndim == 2:
            call["position_ids"] = positions - short.shift
        return call

    def _without_images(self, short: ShortPrompt, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments without images, which the cache has already.

        Raises:
            BadInput: there is a new image among the new tokens.
        """
        n_whole = short.n_columns[0]
        ids = kwargs["input_ids"]
        later = ids[:, n_whole:] if ids.shape[1] > n_whole else ids
        guards.refuse_new_images({**kwargs, "input_ids": later}, self.family.placeholders(self.model))
        vision = (*PIXELS.values(), ENCODED)
        return {name: value for name, value in kwargs.items() if name not in vision or value is None}


def prompt_of(cache: Any, n_new: int = 0) -> ShortPrompt | None:
    """The short prompt that a cache holds; None if it holds another or nothing.

    A static cache counts on the device. To decode without waiting for it, one new token (`n_new`) on a static cache
    that knows its prompt is taken for decoding.
    """
    short = getattr(getattr(cache, STATE, None), "before", None)
    if short is None or (n_new == 1 and cache.is_compileable):
        return short
    return short if int(cache.get_seq_length()) > 0 else None


def _named(function: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name."""
    return {**dict(zip(inspect.signature(function).parameters, args, strict=False)), **kwargs} if args else dict(kwargs)


def _with_mask(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without cache and mask, transformers would take gaps between positions for the ends of packed sequences."""
    ids = kwargs.get("input_ids")
    if kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None and ids is not None:
        kwargs = {**kwargs, "attention_mask": torch.ones_like(ids)}
    return kwargs


def _restored(output: Any, ids: Tensor, n_short: int) -> Any:
    """What generate() returned, its sequences beginning with the caller's prompt instead of the short one."""
    sequences = output if torch.is_tensor(output) else output.sequences
    prompts = ids.to(sequences.device).repeat_interleave(sequences.shape[0] // ids.shape[0], dim=0)
    sequences = torch.cat([prompts, sequences[:, n_short:]], dim=1)
    if torch.is_tensor(output):
        return sequences
    output.sequences = sequences
    return output
