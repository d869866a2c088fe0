"""Cutting visual tokens inside the language model, by wrapping the `forward` of a few modules on the instance.

The body's wrapper sees the token ids, the decoder's opens and closes a prefill, the wrapped layers gather their input
at a cut and get gathered rotary tables and a mask of their own after it. Nothing of a model's forward is copied; the
only convention relied on is the call of a decoder layer:
`layer(hidden, attention_mask=, position_embeddings=, position_ids=, past_key_values=, ...)`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from llava.model import guards
from llava.model.accounting import DecoderSize
from llava.model.cachecut import cut_cache
from llava.model.cuts import cut, cut_again
from llava.model.encoding import Units
from llava.model.families.base import Family
from llava.model.fitting import fitted
from llava.model.layout import Layout
from llava.model.masks import prompt_padding
from llava.model.passes import Pass
from llava.model.positions import renumbers, tables_by_type
from llava.model.prefix import Shared
from llava.model.report import PrefillRecord
from llava.model.sharing import Sharing
from llava.model.shortprompt import ShortPrompt
from llava.model.stages import PromptState
from llava.model.steps import ranking
from llava.model.stopwatch import Stopwatch
from llava.model.tap import Attention, peek, tapped
from llava.model.uncached import UncachedPrompt
from llava.model.wrapping import Wrappers
from llava.reduction.base import TOGETHER, LayerState, LLMStage, Reduction, Selection
from llava.reduction.groups import Groups

STATE = "llava_prompt_state"  # attribute of the cache object
FROM_ATTENTION = frozenset({"keys", "values", "received", "attention", "rotary"})
AHEAD = "attention_ahead"
UNCACHED_PROMPTS = 4  # generations without a cache that may interleave

Original = Callable[..., Any]


class Surgery:
    """A method at work on one model.

    Args:
        method: which visual tokens survive.
        model: a vision-language model of transformers.
        family: its adapter.
        on_prefill: called with the record of every prefill.

    Attributes:
        handed: (T,) scores by name that an earlier stage hands on to the next prefill, one per visual token of the
            batch in the order of the prompts; methods find them in `LayerState.handed`.
    """

    def __init__(self, method: Reduction, model: Any, family: Family, on_prefill: Callable[[PrefillRecord], None]):
        self.whole, self.model, self.family, self.on_prefill = method, model, family, on_prefill
        self.method: Any = next((part for part in method.parts if isinstance(part, LLMStage)), method)
        self.decoder: Any = family.decoder(model)
        self.config: Any = self.decoder.config
        self.together = getattr(self.method, "images", None) == TOGETHER
        self.renumber = renumbers(self.method, self.config)
        self.by_type = self.renumber and tables_by_type(self.decoder)
        self.handed: dict[str, Tensor] = {}
        self.short_prompt: Callable[[], ShortPrompt | None] = lambda: None  # asked in every prefill
        self.tail: Callable[..., Tensor | None] | None = None  # runs all layers after the last cut at once
        self.sharing: Sharing | None = None  # takes what prompts have in common from a store
        self.encoded_units: Callable[[dict[str, Any]], dict[str, Units]] = lambda inputs: {}  # which images those are
        self.wrappers = Wrappers()
        self.scores = False  # whether to note what the method ranks the tokens by
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
        every = getattr(self.method, "cuts_cache", False) or (self.sharing is not None and self.sharing.possible)
        first = 0 if every else min(self.method.layers, default=len(self.decoder.layers) + 1) - 1
        for number, layer in enumerate(self.decoder.layers):
            if number >= first:
                wrap(layer, "forward", self._around_layer(number, layer))
        if not self.method.layers:
            return
        if self.family.adds_between_layers:
            wrap(self.decoder, self.family.adds_between_layers, self._around_addition)
        wrap(self.model, "forward", self._around_model)
        if hasattr(self.model, "_prefill"):
            wrap(self.model, "_prefill", self._around_generate_prefill)

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
            if self.sharing is not None and running.record is not None:
                running.shared = self._shared(running, original, kwargs)
            output = original(*args, **kwargs)
        finally:
            self.running = None
            self.handed = {}
        if running.record is not None:
            self._finish(running, getattr(output, "past_key_values", None))
        return output

    def _shared(self, running: Pass, original: Original, kwargs: dict[str, Any]) -> Shared | None:
        """What the prompts of a prefill take from the store; what is missing there is computed first."""

        def run(alone: Pass, given: dict[str, Any]) -> None:
            self.running = alone
            try:
                original(**given)
            finally:
                self.running = running

        short = running.state.before
        units = self.encoded_units(self.inputs) if short is None else short.units
        return None if self.sharing is None else self.sharing.plan(running, units, kwargs, run)

    def _around_addition(self, original: Original, hidden: Tensor, visual: Tensor, features: Tensor) -> Tensor:
        running = self.running
        stages = running.state.stages if running is not None and running.prefill else []
        return original(hidden, *(stages[-1].visual_rows(visual, features) if stages else (visual, features)))

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
        cache = kwargs.get("past_key_values")
        ids: Any = self.inputs.get("input_ids")
        guards.refuse_unseen_ids(ids, n_columns)
        guards.refuse_short_windows(self.decoder, self.method.layers, n_columns)
        padding = prompt_padding(kwargs.get("attention_mask"), n_columns)
        short = self.short_prompt()
        lengths = self.family.image_lengths(self.model, self.inputs) if short is None else short.lengths(len(ids))
        newlines = self.family.newlines(self.model, self.inputs) if short is None else None
        layout = Layout.read(ids, padding, self.family.placeholders(self.model), lengths, newlines)
        running = Pass(PromptState(layout, layout.counts(self.together), before=short), cache, prefill=True)
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
            self.whole, DecoderSize.of(self.config), layout, running.state.stages, stopwatch, before=short
        )
        self.handed |= {} if short is None else short.handed(len(ids))
        self._prepare(running, kwargs.get("inputs_embeds"))
        return running

    def _prepare(self, running: Pass, embeds: Any) -> None:
        """Let the method look at the whole prompt, and keep what an earlier stage hands on."""
        state = running.state
        if not (self.method.layers and running.selects()):
            return
        guards.refuse_handed(self.handed, sum(map(sum, state.layout.visual)))
        state.handed = {name: state.layout.spread(values) for name, values in self.handed.items()}
        if type(self.method).prepare is not LLMStage.prepare:
            groups = state.layout.groups(self.together, *state.columns(None), state.n_visual, 0)
            with running.record.stopwatch.running():
                state.prepared = self.method.prepare(self._layer_state(0, embeds, groups, running))

    def _will_make_cache(self, kwargs: dict[str, Any]) -> bool:
        wanted = kwargs.get("use_cache")
        return bool(self.config.use_cache if wanted is None else wanted)

    def _finish(self, running: Pass, cache: Any) -> None:
        cache = running.cache if running.cache is not None else cache
        if cache is not None:
            setattr(cache, STATE, running.state)  # the decoder may have made the cache itself
            if getattr(self.method, "cuts_cache", False) and running.selects():
                with running.record.stopwatch.running():
                    cut_cache(self.method, running.state, cache, self.together, running.positions)
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
            if running.ended:  # by the tail, this layer included
                return hidden
            if number == running.note_at:
                running.noted, running.ended = hidden, running.stops
                if running.ended:
                    return hidden
            shared = running.shared
            if shared is not None and number == shared.until:
                hidden = shared.whole(hidden)
            if running.prefill:
                running.cache = kwargs.get("past_key_values")
                if self.renumber:
                    running.positions = kwargs["position_ids"].expand(len(hidden), -1)
                if shared is not None and number == shared.cut:
                    with running.record.stopwatch.running():
                        hidden = shared.choose(number, running.state, hidden, running.positions)
                    running.cut_made()
                elif cuts_here and not (shared is not None and shared.stores_choice):

                    def run(**changed: Any) -> Any:
                        now = fitted(self.decoder, self.by_type, kwargs, number, hidden, running)
                        return original(hidden, *args, **{**now, **changed})

                    hidden = self._cut(number, layer, hidden, running, run)
            kwargs = fitted(self.decoder, self.by_type, kwargs, number, hidden, running)
            in_part = shared is not None and shared.covers(number)
            if cuts_here and self.tail is not None and running.prefill and not in_part:
                output = self._tail_from(number, hidden, running, kwargs)
                if output is not None:
                    return output
            chosen_anew = reads and running.selects() and not (shared is not None and shared.stores_choice)
            read_here = chosen_anew and self._problem(number + 1, running) is not None
            if read_here and "rotary" in self.method.needs:
                cos, sin = kwargs["position_embeddings"]
                running.read["rotary"] = tuple(table.expand(len(hidden), -1, -1) for table in (cos, sin))
            first_query = 0
            if in_part:
                first_query = shared.first(number)
                hidden, kwargs = shared.part(number, self.config, hidden, kwargs)
            if not read_here:
                return original(hidden, *args, **kwargs)
            with tapped(layer.self_attn, lambda attention: self._read(attention, running), first_query):
                return original(hidden, *args, **kwargs)

        return around

    def _tail_from(self, number: int, hidden: Tensor, running: Pass, kwargs: dict[str, Any]) -> Tensor | None:
        """The output of the last layer, if `number` was cut now and nothing is cut after it; else None."""
        stage = running.state.at(number)
        if self.tail is None or stage is None or stage.first_layer != number or number != max(self.method.layers):
            return None
        output = self.tail(number, hidden, stage, kwargs)
        running.ended = output is not None
        return output

    def _problem(self, number: int, running: Pass) -> tuple[Groups, list[int] | None] | None:
        """The selection problems of the cut before layer `number` and the planned survivors; None: nothing to cut."""
        if running.groups is None:
            state = running.state
            columns = state.columns(state.newest)
            running.groups = state.layout.groups(self.together, *columns, state.n_visual, number)
            running.plan = self.method.plan(running.groups)
        groups, plan = running.groups, running.plan
        done = plan is not None and all(kept >= n for kept, n in zip(plan, groups.n_visual, strict=True))
        return None if done else (groups, plan)

    def _cut(self, number: int, layer: nn.Module, hidden: Tensor, running: Pass, run: Callable[..., Any]) -> Tensor:
        """Gather the surviving columns of a layer's input: (B, S, D) -> (B, S', D)."""
        state, method = running.state, self.method
        for stage in running.replay:
            if stage.first_layer == number:
                running.cut_made()
                return cut_again(state, stage, hidden, state.layout.real.shape[1])
        problem = self._problem(number, running) if running.selects() else None
        if problem is not None:
            groups, plan = problem
            with running.record.stopwatch.running():
                if AHEAD in method.needs:
                    attention = peek(layer, lambda: run(past_key_values=None))
                    columns, valid = method.queries(groups)
                    running.read["attention"] = attention.asked(columns, valid, groups)
                layer_state = self._layer_state(number, hidden, groups, running)
                selection = method.select(layer_state)
                if not isinstance(selection, Selection):
                    selection = Selection(selection)
                guards.refuse_selection(method, selection.kept, groups)
                if self.scores:
                    self._note_scores(layer_state, running)
                hidden = cut(state, number, hidden, selection, groups, plan, self.together, running.positions)
        running.cut_made()
        return hidden

    def _note_scores(self, layer_state: LayerState, running: Pass) -> None:
        scores, state = self.method.scores(layer_state), running.state
        if scores is not None:
            noted = ranking(state.layout, state.newest, scores, layer_state.groups, self.method.score_name)
            running.record.rankings.append(noted)

    def _layer_state(self, number: int, hidden: Tensor, groups: Groups, running: Pass) -> LayerState:
        needs, state = self.method.needs, running.state
        handed = state.handed
        if state.newest is not None:
            handed = {name: values.gather(1, state.newest.source) for name, values in handed.items()}
        return LayerState(
            layer=number,
            hidden=hidden,
            groups=groups,
            normed=self.decoder.norm(hidden) if "normed" in needs and number else None,
            seeds=state.layout.seeds(self.together) if "seeds" in needs else None,
            handed={name: groups.visual(values) for name, values in handed.items()},
            prepared=state.prepared,
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
                read["received"] = attention.received(running.state.columns(running.state.newest)[1])
            if "attention" in needs:
                groups = running.groups
                columns, valid = self.method.queries(groups)
                read["attention"] = attention.asked(columns, valid, groups)


def _is_empty(cache: Any, n_new: int, state: PromptState | None) -> bool:
    """Whether a cache holds nothing yet.

    A static cache counts on the device. To decode without waiting for it, one new token on a static cache that knows
    its prompt is taken for decoding.
    """
    if state is not None and n_new == 1 and cache.is_compileable:
        return False
    return int(cache.get_seq_length()) == 0
