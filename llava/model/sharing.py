"""Which prefixes a prefill can take from the store, and computing those that are not there yet.

A prefix is known by its token ids, their positions and the hashes of its images. One that is missing is computed alone,
without padding, by the model's own decoder, before the prompts that begin with it: so a batch of questions about one
image costs the image once, and what is stored never depends on the batch around it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from llava.model.encoding import Units
from llava.model.families.base import Family
from llava.model.layout import Layout
from llava.model.masks import FULL, SLIDING, layer_type
from llava.model.passes import Pass
from llava.model.prefix import Prefix, Shared
from llava.model.reuse import PREFIX, Reuse, size_of
from llava.model.stages import PromptState
from llava.reduction.base import LLMStage, Reduction
from llava.reduction.image import BeforeLLM

RECEIVED, ATTENTION = "received", "attention"
Run = Callable[[Pass, dict[str, Any]], Any]


@dataclass(frozen=True)
class Found:
    """Where the prefix of one prompt is, and what it is stored under; no key: it has no image."""

    start: int
    end: int
    key: Hashable | None

    @property
    def length(self) -> int:
        return self.end - self.start


class Sharing:
    """Prefix reuse for one method on one model.

    Args:
        method, inside: the method, and its part that cuts inside the language model (or the method itself).
        model, family: a vision-language model and its adapter.
        reuse: the store.
        together: whether all images of a prompt are one selection problem.
        anew: whether every choice is to be made anew, whatever it depends on.
    """

    def __init__(
        self,
        method: Reduction,
        inside: Any,
        model: Any,
        family: Family,
        reuse: Reuse,
        together: bool,
        anew: bool = False,
    ):
        self.method, self.inside, self.model, self.family, self.reuse = method, inside, model, family, reuse
        self.together = together
        decoder: Any = family.decoder(model)
        self.config: Any = decoder.config
        self.n_layers = len(decoder.layers)
        # A choice that the question has no part in is stored with the prefix; else it is made anew every time.
        same = not (anew or inside.depends_on_question) and _looks_at_image(inside)
        self.stores_choice = same and len(inside.layers) == 1
        self.possible = self._is_possible()

    def plan(self, running: Pass, units: dict[str, Units], kwargs: dict[str, Any], run: Run) -> Shared | None:
        """What the prompts of a prefill share; None: nothing.

        Args:
            running: the prefill.
            units: what was encoded for it, by kind.
            kwargs: arguments of the decoder.
            run: runs the decoder as a given pass with given arguments.
        """
        state = running.state
        if not (self.possible and state.layout.has_images and self._fits(running.cache, kwargs)):
            return None
        if self.stores_choice and state.handed:
            return None  # scores of an earlier stage are not stored
        found = self._find(state.layout, units, kwargs)
        if found is None:
            return None
        n_columns, until = state.layout.host_ids.shape[1], self._until(state)
        width = max(1, n_columns - min(one.end for one in found))
        stored = n_columns - width
        with_image = [one for one in found if one.key is not None]
        if until < 1 or any(2 * (stored - one.start) < one.length for one in with_image):
            return None  # beside a long prompt without an image, hardly anything would be left to share
        if not self._have_room(with_image, kwargs["inputs_embeds"], until):
            return None
        prefixes = self._prefixes(running, found, kwargs, until, run)
        cut = None
        if self.stores_choice:
            chosen = any(prefix is not None and prefix.kept is not None for prefix in prefixes)
            cut, until = (self.inside.layers[0], until) if chosen else (None, self.n_layers)
        shared = Shared(
            prefixes=prefixes,
            starts=[one.start for one in found],
            n_columns=n_columns,
            width=width,
            until=until,
            device=kwargs["inputs_embeds"].device,
            stores_choice=self.stores_choice,
            cut=cut,
        )
        running.record.skipped = [shared.skipped(layer) for layer in range(self.n_layers)]
        return shared

    # ------------------------------------------------------------------------------------------------- what can be done

    def _is_possible(self) -> bool:
        kinds = {layer_type(self.config, number) for number in range(self.n_layers)}
        name, why = type(self.model).__name__, ""
        if self.family.adds_between_layers:
            why = "features are added to the visual tokens between its layers"
        elif self.family.prefix_differs:
            why = self.family.prefix_differs
        elif kinds - {FULL, SLIDING}:
            why = f"it has layers of type {', '.join(sorted(kinds - {FULL, SLIDING}))}"
        elif any(part.depends_on_question for part in self.method.parts if isinstance(part, BeforeLLM)):
            name, why = f"method {self.method.name!r}", "the question decides which tokens the prompt has"
        if why:
            self.reuse.note(f"The prompts of {name} run without shared keys and values: {why}.")
        return not why

    def _fits(self, cache: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this call is of a kind that can begin in the middle."""
        mask, window = kwargs.get("attention_mask"), getattr(self.config, "sliding_window", None)
        own_mask = isinstance(mask, dict) or (torch.is_tensor(mask) and mask.ndim == 4)
        known = isinstance(cache, (DynamicCache, StaticCache))
        if not known or torch.is_grad_enabled() or (own_mask and not cache.is_compileable):
            return False
        if window is not None and window < kwargs["inputs_embeds"].shape[1]:
            self.reuse.note("Prompts longer than the attention window run without shared keys and values.")
            return False
        return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer) for layer in cache.layers)

    def _until(self, state: PromptState) -> int:
        """The first layer that needs the hidden states of all columns."""
        layers, needs = self.inside.layers, getattr(self.inside, "needs", ())
        if not layers or self.stores_choice:
            return layers[0] if layers else self.n_layers
        looks_back = RECEIVED in needs
        if ATTENTION in needs and type(self.inside).queries is not LLMStage.queries:
            looks_back = looks_back or self._asks_before_question(state.layout)
        return layers[0] - looks_back

    def _asks_before_question(self, layout: Layout) -> bool:
        """Whether the method wants attention of tokens before the end of the last image; asked on the host."""
        host = replace(layout, image=layout.host_image, real=layout.host_real)
        counts = layout.counts(self.together)
        groups = host.groups(self.together, host.image, host.real, counts, self.inside.layers[0])
        columns, valid = self.inside.queries(groups)
        visual = layout.host_image >= 0
        last = visual.shape[1] - 1 - visual.flip(1).int().argmax(1)
        return bool((valid & (columns <= last[groups.sample][:, None])).any())

    # ----------------------------------------------------------------------------------------------------- the prefixes

    def _find(self, layout: Layout, units: dict[str, Units], kwargs: dict[str, Any]) -> list[Found] | None:
        """The prefix of every prompt; None if it is not known what its images are, or if there are gaps in it."""
        images = self._images(layout, units)
        if images is None:
            return None
        n_rows, n_columns = layout.host_ids.shape
        positions = kwargs.get("position_ids")
        positions = torch.arange(n_columns) if positions is None else positions.cpu()
        positions = positions.expand(*positions.shape[:-2], n_rows, n_columns)
        # A choice that is stored belongs to its method; keys and values before any choice belong to all methods.
        own = (type(self.inside), repr(self.inside)) if self.stores_choice else None
        scope = (*self.reuse.scope(self.model), own)
        found = []
        for row, seen in enumerate(images):
            start = int(layout.host_real[row].int().argmax())
            if not seen:
                found.append(Found(start, start, None))
                continue
            end = int((layout.host_image[row] >= 0).nonzero()[-1]) + 1
            here = slice(start, end)
            if not bool(layout.host_real[row, here].all()):
                return None  # something before the end of the image is hidden
            key = (layout.host_ids[row, here].numpy().tobytes(), positions[..., row, here].numpy().tobytes(), seen)
            found.append(Found(start, end, (*scope, *key)))
        return found

    def _images(self, layout: Layout, units: dict[str, Units]) -> list[tuple[bytes, ...]] | None:
        """The hashes of the images of every prompt; None where they and the places in the prompts do not agree."""
        images: list[tuple[bytes, ...]] = [()] * len(layout.host_ids)
        visual, seen = layout.host_image >= 0, 0
        for kind in ("image", "video"):
            token = getattr(self.model.config, f"{kind}_token_id", None)
            counts = (visual & (layout.host_ids == token)).sum(1).tolist() if token is not None else [0] * len(images)
            seen += sum(counts)
            if not sum(counts):
                continue
            own, total = iter(units.get(kind, ())), sum(n for _, n in units.get(kind, ()))
            times, rest = divmod(sum(counts), total) if total else (0, 1)
            if rest or len(counts) % times:
                return None
            for row in range(0, len(counts), times):  # the rows of one prompt, if it stands there several times
                left = counts[row]
                while left > 0:
                    seen_here, n_tokens = next(own)
                    left -= n_tokens
                    for again in range(row, row + times):
                        images[again] = (*images[again], seen_here)
                if left < 0:
                    return None
        return images if seen == int(visual.sum()) else None

    def _have_room(self, found: list[Found], embeds: Tensor, until: int) -> bool:
        """Whether the prefixes of a batch can be kept at all."""
        config = self.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cached = 2 * head * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        layers = self.n_layers if self.stores_choice else until
        width = cached * layers + (config.hidden_size if until < self.n_layers else 0)
        needed = sum({one.key: one.length for one in found}.values()) * width * embeds.element_size()
        if self.reuse.fits(needed):
            return True
        self.reuse.note(
            f"The keys and values of the images of a batch need up to {needed / 1e6:.1f} MB, more than the "
            f"{self.reuse.limit / 1e6:.1f} MB that may be kept: such prompts run without sharing them. Give a larger "
            "limit or a smaller batch."
        )
        return False

    def _prefixes(
        self, running: Pass, found: list[Found], kwargs: dict[str, Any], until: int, run: Run
    ) -> list[Prefix | None]:
        """The prefix of every prompt, from the store or computed now."""
        here: dict[Hashable, Prefix] = {}
        prefixes: list[Prefix | None] = []
        for row, one in enumerate(found):
            if one.key is None:
                prefixes.append(None)
                continue
            key = (one.key, until)
            if key in here:
                self.reuse.again(PREFIX)
            else:
                stored = self.reuse.get(PREFIX, key)
                here[key] = stored or self._computed(running, row, one, kwargs, until, run)
                if stored is None:
                    self.reuse.put(PREFIX, key, here[key], size_of(*here[key].tensors))
                    running.record.spent[row] = here[key].cost
            prefixes.append(here[key])
        return prefixes

    def _computed(
        self,
        running: Pass,
        row: int,
        found: Found,
        kwargs: dict[str, Any],
        until: int,
        run: Run,
    ) -> Prefix:
        here, positions = slice(found.start, found.end), kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(found.start, found.end, device=kwargs["inputs_embeds"].device)[None]
        else:
            rows = slice(row, row + 1) if positions.shape[-2] > 1 else slice(None)
            positions = positions[..., rows, here]
        given = {
            "inputs_embeds": kwargs["inputs_embeds"][row : row + 1, here],
            "position_ids": positions,
            "attention_mask": None,
            "past_key_values": DynamicCache(),
            "use_cache": True,
        }
        alone = Pass(PromptState(None), given["past_key_values"], note_at=until, stops=not self.stores_choice)
        if self.stores_choice:
            layout = _one_prompt(running.state.layout, row, here)
            counts = layout.counts(self.together)
            alone.state, alone.prefill = PromptState(layout, counts), True
            alone.record = replace(running.record, layout=layout, stages=alone.state.stages)
        run(alone, given)
        layers, stages = given["past_key_values"].layers, alone.state.stages
        kept = stages[0].index[0] if stages else None
        return Prefix(
            keys=[layer.keys for layer in layers],
            values=[layer.values for layer in layers],
            hidden=alone.noted,
            length=found.length,
            kept=kept,
            n_visual=tuple(alone.state.n_visual),
            cost=tuple(layer.keys.shape[2] for layer in layers),
        )


def _looks_at_image(inside: Any) -> bool:
    """Whether a method that says it does not depend on the question can be given the image's columns alone."""
    own = getattr(inside, "prepare", None) is None or type(inside).prepare is LLMStage.prepare
    return own and "seeds" not in getattr(inside, "needs", ())


def _one_prompt(layout: Layout, row: int, columns: slice) -> Layout:
    """A part of one prompt, as a batch of its own."""
    each = ("image", "real", "host_image", "host_real", "host_ids")
    return Layout(**{name: getattr(layout, name)[row : row + 1, columns] for name in each})
