"""Cutting visual tokens inside the language model, by wrapping the `forward` of a few modules on the instance.

The body's wrapper sees the token ids, the decoder's opens and closes a prefill, the wrapped layers gather their input
at a cut and get gathered rotary tables and a mask of their own after it. Nothing of a model's forward is copied; the
only convention relied on is the call of a decoder layer:
`layer(hidden, attention_mask=, position_embeddings=, position_ids=, past_key_values=, ...)`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from llava.model import guards
from llava.model.accounting import DecoderSize
from llava.model.families.base import Family
from llava.model.layout import Layout
from llava.model.masks import layer_type, prompt_padding, stage_mask
from llava.model.report import PrefillRecord
from llava.model.stages import PromptState, Stage, take
from llava.model.stopwatch import Stopwatch
from llava.model.tap import Attention, tapped
from llava.model.uncached import UncachedPrompt
from llava.model.wrapping import Wrappers
from llava.reduction.base import TOGETHER, LayerState, Reduction

STATE = "llava_prompt_state"  # attribute of the cache object
FROM_ATTENTION = frozenset({"keys", "values", "received"})
UNCACHED_PROMPTS = 4  # generations without a cache that may interleave

Original = Callable[..., Any]


@dataclass
class Pass:
    """One run of the decoder: what its layers share.

    Args:
        state: the cuts of this prompt.
        cache: the cache, as far as it is known.
        prefill: whether this pass computes a whole prompt.
        record: notes for the report, if this is a prefill that counts.
        replay: cuts chosen earlier for this prompt, to be made again (generation without a cache).
        read: tensors read from the layer before a cut.
        masks, rotary: masks by layer type and (source, gathered) tables, shared by the layers of a stage.
    """

    state: PromptState
    cache: Any = None
    prefill: bool = False
    record: PrefillRecord | None = None
    replay: list[Stage] = field(default_factory=list)
    read: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[tuple[int, str], Tensor | None] = field(default_factory=dict)
    rotary: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def selects(self) -> bool:
        """Whether survivors are to be chosen in this pass."""
        return self.record is not None and self.state.layout.has_images

    def cut_made(self) -> None:
        """Forget what belongs to the columns before a cut."""
        self.read.clear()
        self.masks.clear()
        self.rotary.clear()


class Surgery:
    """A method at work on one model.

    Args:
        method: which visual tokens survive.
        model: a vision-language model of transformers.
        family: its adapter.
        on_prefill: called with the record of every prefill.
    """

    def __init__(self, method: Reduction, model: Any, family: Family, on_prefill: Callable[[PrefillRecord], None]):
        self.method, self.model, self.family, self.on_prefill = method, model, family, on_prefill
        self.decoder = family.decoder(model)
        self.config = self.decoder.config
        self.together = getattr(method, "images", None) == TOGETHER
        self.wrappers = Wrappers()
        self.inputs: dict[str, Any] = {}
        self.running: Pass | None = None
        self.uncached: deque[UncachedPrompt] = deque(maxlen=UNCACHED_PROMPTS)

    def install(self) -> None:
        """Wrap the model's modules.

        Raises:
            UnsupportedModel: the layers to be cut do not exist or cannot be cut.
        """
        guards.refuse_layers(self.decoder, self.method.layers)
        wrap = self.wrappers.wrap
        wrap(self.family.body(self.model), "forward", self._around_body)
        wrap(self.decoder, "forward", self._around_decoder)
        if not self.method.layers:
            return
        wrap(self.model, "forward", self._around_model)
        if hasattr(self.model, "_prefill"):
            wrap(self.model, "_prefill", self._around_generate_prefill)
        for number, layer in enumerate(self.decoder.layers):
            if number >= min(self.method.layers) - 1:
                wrap(layer, "forward", self._around_layer(number, layer))

    def remove(self) -> None:
        """Put every module back."""
        self.wrappers.unwrap_all()
        self.inputs, self.running = {}, None
        self.uncached.clear()

    # ----------------------------------------------------------------------------------------------- the model's calls

    def _around_model(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        guards.refuse_call(kwargs, continues=getattr(kwargs.get("past_key_values"), STATE, None) is not None)
        return original(*args, **kwargs)

    def _around_generate_prefill(
        self, original: Original, input_ids: Tensor, generation_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        guards.refuse_chunks(generation_config)
        return original(input_ids, generation_config, *args, **kwargs)

    def _around_body(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        self.inputs = {**kwargs, "input_ids": kwargs.get("input_ids", args[0] if args else None)}
        try:
            return original(*args, **kwargs)
        finally:
            self.inputs = {}

    def _around_decoder(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        self.running = running = self._begin(kwargs)
        try:
            output = original(*args, **kwargs)
        finally:
            self.running = None
        if running.record is not None:
            self._finish(running, getattr(output, "past_key_values", None))
        return output

    # --------------------------------------------------------------------------------------------------------- passes

    def _begin(self, kwargs: dict[str, Any]) -> Pass:
        cache, embeds = kwargs.get("past_key_values"), kwargs.get("inputs_embeds")
        given = kwargs.get("input_ids") if embeds is None else embeds
        n_new = 0 if given is None else given.shape[1]
        state = getattr(cache, STATE, None)
        if cache is None or _is_empty(cache, n_new, state):
            return self._begin_prefill(kwargs, n_new)
        if self.method.layers:
            guards.refuse_new_images(self.inputs, self.family.placeholders(self.model))
        return Pass(state or PromptState(None), cache)

    def _begin_prefill(self, kwargs: dict[str, Any], n_columns: int) -> Pass:
        ids, cache = self.inputs.get("input_ids"), kwargs.get("past_key_values")
        guards.refuse_unseen_ids(ids, n_columns)
        guards.refuse_short_windows(self.decoder, self.method.layers, n_columns)
        padding = prompt_padding(kwargs.get("attention_mask"), n_columns)
        lengths = self.family.image_lengths(self.model, self.inputs)
        layout = Layout.read(ids, padding, self.family.placeholders(self.model), lengths)
        running = Pass(PromptState(layout, layout.counts(self.together)), cache, prefill=True)
        if cache is not None:
            setattr(cache, STATE, running.state)
        elif not self._will_make_cache(kwargs):
            for prompt in self.uncached:
                if prompt.is_continued_by(layout, self.inputs):
                    running.replay = prompt.stages(n_columns)
                    return running
            self.uncached.append(UncachedPrompt(layout, self.inputs, running.state))
        stopwatch = Stopwatch(ids.device)
        running.record = PrefillRecord(
            self.method, DecoderSize.of(self.config), layout, running.state.stages, stopwatch
        )
        return running

    def _will_make_cache(self, kwargs: dict[str, Any]) -> bool:
        wanted = kwargs.get("use_cache")
        return bool(self.config.use_cache if wanted is None else wanted)

    def _finish(self, running: Pass, cache: Any) -> None:
        cache = running.cache if running.cache is not None else cache
        if cache is not None:
            setattr(cache, STATE, running.state)  # the decoder may have made the cache itself
        running.record.note_cache(cache)
        self.on_prefill(running.record)

    # --------------------------------------------------------------------------------------------------------- layers

    def _around_layer(self, number: int, layer: nn.Module) -> Callable[..., Any]:
        cuts_here, cuts_next = number in self.method.layers, number + 1 in self.method.layers
        reads = cuts_next and bool(FROM_ATTENTION & self.method.needs)

        def around(original: Original, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            running = self.running
            if running is None:  # someone runs a layer by itself
                return original(hidden, *args, **kwargs)
            if running.prefill:
                running.cache = kwargs.get("past_key_values")
                if cuts_here:
                    hidden = self._cut(number, hidden, running)
            stage = running.state.at(number)
            if stage is not None:
                kwargs = self._fit(kwargs, number, hidden, stage, running)
            if not (reads and running.selects()):
                return original(hidden, *args, **kwargs)
            with tapped(layer.self_attn, lambda attention: self._read(attention, running)):
                return original(hidden, *args, **kwargs)

        return around

    def _cut(self, number: int, hidden: Tensor, running: Pass) -> Tensor:
        """Gather the surviving columns of a layer's input: (B, S, D) -> (B, S', D)."""
        state = running.state
        for stage in running.replay:
            if stage.first_layer == number:
                running.cut_made()
                columns = state.replay(stage)
                return take(hidden, columns)
        if not running.selects():
            return hidden
        image, real = state.columns()
        groups = state.layout.groups(self.together, image, real, state.n_visual)
        plan = self.method.plan(groups)
        if plan is not None and all(kept >= n for kept, n in zip(plan, groups.n_visual, strict=True)):
            return hidden
        with running.record.stopwatch.running():
            kept = self.method.select(self._layer_state(number, hidden, groups, running))
            guards.refuse_selection(self.method, kept, groups)
            keep = (real & (image < 0)) | groups.scatter(kept, *hidden.shape[:2])
            counts = (kept & groups.valid).sum(1).tolist() if plan is None else plan
            hidden = take(hidden, state.cut(number, keep, counts, self.together))
        running.cut_made()
        return hidden

    def _layer_state(self, number: int, hidden: Tensor, groups: Any, running: Pass) -> LayerState:
        needs = self.method.needs
        return LayerState(
            layer=number,
            hidden=hidden,
            groups=groups,
            normed=self.decoder.norm(hidden) if "normed" in needs else None,
            seeds=running.state.layout.seeds(self.together) if "seeds" in needs else None,
            **running.read,
        )

    def _read(self, attention: Attention, running: Pass) -> None:
        needs, read = self.method.needs, running.read
        with running.record.stopwatch.running():
            if "keys" in needs:
                read["keys"] = attention.key.transpose(1, 2).flatten(2)
            if "values" in needs:
                read["values"] = attention.value.transpose(1, 2).flatten(2)
            if "received" in needs:
                read["received"] = attention.received(running.state.columns()[1])

    def _fit(self, kwargs: dict[str, Any], number: int, hidden: Tensor, stage: Stage, running: Pass) -> dict[str, Any]:
        """The arguments of a layer after a cut: its own mask, the rotary tables of the surviving tokens."""
        key = (stage.first_layer, layer_type(self.config, number))
        if key not in running.masks:
            given = kwargs.get("attention_mask") if running.prefill else None
            running.masks[key] = stage_mask(self.config, number, hidden, stage, kwargs.get("past_key_values"), given)
        # position_ids would only make flash attention look for packed sequences, which gathered positions resemble.
        kwargs = {**kwargs, "attention_mask": running.masks[key], "position_ids": None}
        if running.prefill:
            tables = kwargs["position_embeddings"]
            kwargs["position_embeddings"] = tuple(_gathered(table, stage, running) for table in tables)
        return kwargs


def _gathered(table: Tensor, stage: Stage, running: Pass) -> Tensor:
    """Rotary tables are shared by the layers of a stage, so each is gathered once."""
    for source, gathered in running.rotary:
        if source is table:
            return gathered
    running.rotary.append((table, take(table, stage.index)))
    return running.rotary[-1][1]


def _is_empty(cache: Any, n_new: int, state: PromptState | None) -> bool:
    """Whether a cache holds nothing yet.

    A static cache counts on the device. To decode without waiting for it, one new token on a static cache that knows
    its prompt is taken for decoding.
    """
    if state is not None and n_new == 1 and cache.is_compileable:
        return False
    return int(cache.get_seq_length()) == 0
