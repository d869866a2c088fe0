"""Cutting visual tokens inside the language model, by wrapping the `forward` of a few modules on the instance.

The body's wrapper sees the token ids, the decoder's marks the prefill and closes it, the wrapped layers gather their
input at a cut and get gathered rotary tables and a mask of their own after it. Nothing of a model's forward is copied;
the only convention relied on is the call of a decoder layer:
`layer(hidden, attention_mask=, position_embeddings=, position_ids=, past_key_values=, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llava.errors import BadInput, UnsupportedModel
from llava.model.accounting import DecoderSize
from llava.model.families.base import Family
from llava.model.layout import Layout
from llava.model.masks import FULL, SLIDING, layer_type, prompt_padding, stage_mask
from llava.model.report import PrefillRecord
from llava.model.stages import PromptState, Stage, take
from llava.model.stopwatch import Stopwatch
from llava.model.tap import Attention, tapped
from llava.model.uncached import UncachedPrompt
from llava.model.wrapping import Wrappers
from llava.reduction.base import TOGETHER, LayerState, Reduction

STATE = "llava_prompt_state"  # attribute of the cache object
FROM_ATTENTION = frozenset({"keys", "values", "received"})

Original = Callable[..., Any]


@dataclass
class Pass:
    """One run of the decoder: what its layers share.

    Args:
        state: the cuts of this prompt.
        record: notes for the report; None unless this is a prefill that is counted.
        select: whether cuts are to be chosen in this pass.
        prefill: whether this pass computes a whole prompt.
        cache: the cache, once a layer has shown it.
        read: tensors read from the layer before a cut.
        masks: masks by stage and layer type; rotary: (source, gathered) pairs. Shared by the layers of a stage.
    """

    state: PromptState
    record: PrefillRecord | None = None
    select: bool = False
    prefill: bool = False
    replay: list[Stage] = field(default_factory=list)
    cache: Any = None
    read: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[tuple[int, str], Tensor | None] = field(default_factory=dict)
    rotary: list[tuple[Tensor, Tensor]] = field(default_factory=list)


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
        self.inputs: dict[str, Any] | None = None
        self.running: Pass | None = None
        self.uncached: UncachedPrompt | None = None

    # ------------------------------------------------------------------------------------------ putting on, taking off

    def install(self) -> None:
        """Wrap the model's modules.

        Raises:
            UnsupportedModel: the layers to be cut do not exist or cannot be cut.
        """
        self._refuse_layers()
        try:
            self.wrappers.wrap(self.model, "forward", self._around_model)
            if hasattr(self.model, "_prefill"):
                self.wrappers.wrap(self.model, "_prefill", self._around_generate_prefill)
            self.wrappers.wrap(self.family.body(self.model), "forward", self._around_body)
            self.wrappers.wrap(self.decoder, "forward", self._around_decoder)
            first = min(self.method.layers, default=len(self.decoder.layers) + 1)
            for number, layer in enumerate(self.decoder.layers):
                if number >= first - 1:
                    self.wrappers.wrap(layer, "forward", self._around_layer(number, layer))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Put every module back."""
        self.wrappers.unwrap_all()
        self.inputs = self.running = self.uncached = None

    def _refuse_layers(self) -> None:
        n_layers = len(self.decoder.layers)
        for number in self.method.layers:
            if not 1 <= number < n_layers:
                raise UnsupportedModel(
                    f"layer={number} is outside the model: its language model has {n_layers} layers, and the cut is "
                    f"made before one that has another before it. Give a layer from 1 to {n_layers - 1}."
                )
        kinds = {layer_type(self.config, number) for number in range(min(self.method.layers, default=n_layers), n_layers)}
        if kinds - {FULL, SLIDING}:
            raise UnsupportedModel(
                f"{type(self.decoder).__name__} has layers of type {', '.join(sorted(kinds - {FULL, SLIDING}))} after the "
                "cut; only layers with ordinary attention can go on with fewer tokens."
            )

    # ----------------------------------------------------------------------------------------------- the model's calls

    def _around_model(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        if self.method.layers and kwargs.get("labels") is not None:
            raise BadInput(
                "labels= cannot be used while the model is pruned: the logits are shorter than the prompt. Compute the "
                "loss from the logits yourself, or leave the pruning first."
            )
        if self.method.layers and torch.is_tensor(kwargs.get("logits_to_keep")) and not self._continues(kwargs):
            raise BadInput(
                "logits_to_keep= with positions cannot be used in a pruned prefill: positions shift when tokens are cut. "
                "Give a count (logits_to_keep=1 for the last token)."
            )
        return original(*args, **kwargs)

    def _continues(self, kwargs: dict[str, Any]) -> bool:
        return getattr(kwargs.get("past_key_values"), STATE, None) is not None

    def _around_generate_prefill(
        self, original: Original, input_ids: Tensor, generation_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self.method.layers and getattr(generation_config, "prefill_chunk_size", None) is not None:
            raise BadInput(
                "prefill_chunk_size cannot be used while the model is pruned: tokens are chosen by looking at the whole "
                "prompt, so it must be computed in one piece. Leave prefill_chunk_size out."
            )
        return original(input_ids, generation_config, *args, **kwargs)

    def _around_body(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        self.inputs = {**kwargs, "input_ids": kwargs.get("input_ids", args[0] if args else None)}
        try:
            return original(*args, **kwargs)
        finally:
            self.inputs = None

    def _around_decoder(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        self.running = running = self._begin(kwargs)
        try:
            output = original(*args, **kwargs)
        finally:
            self.running = None
        if running.prefill:
            self._finish(running, getattr(output, "past_key_values", None))
        return output

    # --------------------------------------------------------------------------------------------------------- passes

    def _begin(self, kwargs: dict[str, Any]) -> Pass:
        cache, embeds = kwargs.get("past_key_values"), kwargs.get("inputs_embeds")
        state = getattr(cache, STATE, None)
        n_new = embeds.shape[1] if embeds is not None else kwargs["input_ids"].shape[1]
        if cache is not None and not _is_empty(cache, n_new, state):
            self._refuse_new_images(n_new)
            return Pass(state or PromptState(None), cache=cache)
        return self._begin_prefill(kwargs, n_new)

    def _begin_prefill(self, kwargs: dict[str, Any], n_columns: int) -> Pass:
        inputs = self.inputs or {}
        ids = inputs.get("input_ids")
        if ids is None or ids.shape[1] != n_columns:
            raise BadInput(
                "A pruned model needs input_ids in the prefill: they show where the images are. Call the whole model with "
                "input_ids= (and pixel_values=), not with inputs_embeds= alone and not the language model by itself."
            )
        self._refuse_short_windows(n_columns)
        padding = prompt_padding(kwargs.get("attention_mask"), n_columns)
        lengths = self.family.image_lengths(self.model, inputs)
        layout = Layout.read(ids, padding, self.family.placeholders(self.model), lengths)
        running = Pass(PromptState(layout), prefill=True, cache=kwargs.get("past_key_values"))
        if kwargs.get("past_key_values") is None and not self._makes_cache(kwargs):
            if self.uncached is not None and self.uncached.is_continued_by(layout, inputs):
                running.replay = self.uncached.stages(n_columns)
                return running
            self.uncached = UncachedPrompt(layout, inputs, running.state)
        running.select = bool(self.method.layers) and layout.has_images
        running.record = PrefillRecord(
            self.method, DecoderSize.of(self.config), layout, running.state.stages, Stopwatch(ids.device)
        )
        self._remember(running)
        return running

    def _makes_cache(self, kwargs: dict[str, Any]) -> bool:
        wanted = kwargs.get("use_cache")
        return self.config.use_cache if wanted is None else bool(wanted)

    def _remember(self, running: Pass) -> None:
        if running.cache is not None:
            setattr(running.cache, STATE, running.state)

    def _finish(self, running: Pass, cache: Any) -> None:
        running.cache = running.cache if running.cache is not None else cache
        self._remember(running)
        if running.record is not None:
            running.record.note_cache(running.cache)
            self.on_prefill(running.record)

    def _refuse_new_images(self, n_new: int) -> None:
        ids = (self.inputs or {}).get("input_ids")
        if n_new == 1 or ids is None or not self.method.layers:
            return
        placeholders = torch.tensor(self.family.placeholders(self.model), device=ids.device)
        if torch.isin(ids, placeholders).any():
            raise BadInput(
                "A new image on top of a cache that already holds a prompt cannot be pruned. Start a new cache with the "
                "whole conversation (past_key_values=None), images included."
            )

    def _refuse_short_windows(self, n_columns: int) -> None:
        first = min(self.method.layers, default=len(self.decoder.layers))
        kinds = {layer_type(self.config, number) for number in range(first, len(self.decoder.layers))}
        window = getattr(self.config, "sliding_window", None)
        if SLIDING in kinds and window is not None and window < n_columns:
            raise UnsupportedModel(
                f"The prompt has {n_columns} tokens but attention layers after the cut look back only {window}: after "
                "pruning the window would span other tokens. Shorten the prompt, or use --method none."
            )

    # ---------------------------------------------------------------------------------------------------------- layers

    def _around_layer(self, number: int, layer: torch.nn.Module) -> Callable[..., Any]:
        cuts_here, cuts_next = number in self.method.layers, number + 1 in self.method.layers
        reads_attention = cuts_next and bool(FROM_ATTENTION & self.method.needs)

        def around(original: Original, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            running = self.running
            if running is None:
                return original(hidden, *args, **kwargs)
            if running.prefill:
                running.cache = kwargs.get("past_key_values")
                if cuts_here:
                    hidden = self._cut(number, hidden, running)
            stage = running.state.at(number)
            if stage is not None:
                kwargs = self._fit(kwargs, number, hidden, stage, running)
            if not (reads_attention and running.select):
                return original(hidden, *args, **kwargs)
            with tapped(layer.self_attn, lambda attention: self._read(attention, running)):
                return original(hidden, *args, **kwargs)

        return around

    def _cut(self, number: int, hidden: Tensor, running: Pass) -> Tensor:
        state = running.state
        for stage in running.replay:
            if stage.first_layer == number:
                state.stages.append(stage)
                running.masks.clear()
                return take(hidden, stage.index)
        if not running.select:
            return hidden
        groups = state.layout.groups(self.together, *state.columns())
        plan = self.method.plan(groups)
        if plan is not None and all(kept >= n for kept, n in zip(plan, groups.n_visual, strict=True)):
            return hidden
        with running.record.stopwatch.running():
            kept = self.method.select(self._layer_state(number, hidden, groups, running))
            image, real = state.columns()
            keep = (real & (image < 0)) | groups.scatter(kept, *hidden.shape[:2])
            hidden = take(hidden, state.cut(number, keep, self._counts(keep, plan, state.layout)))
        running.masks.clear()
        running.rotary.clear()
        running.read.clear()
        return hidden

    def _counts(self, keep: Tensor, plan: list[int] | None, layout: Layout) -> list[int]:
        """Tokens left per sample: from the plan if the method has one, else asked of the device."""
        if plan is None:
            return keep.sum(1).tolist()
        counts = [total - sum(images) for total, images in zip(layout.lengths, layout.visual, strict=True)]
        for (sample, _), kept in zip(layout.members(self.together), plan, strict=True):
            counts[sample] += kept
        return counts

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
        needs = self.method.needs
        with running.record.stopwatch.running():
            if "keys" in needs:
                running.read["keys"] = attention.key.transpose(1, 2).flatten(2)
            if "values" in needs:
                running.read["values"] = attention.value.transpose(1, 2).flatten(2)
            if "received" in needs:
                running.read["received"] = attention.received(running.state.columns()[1])

    def _fit(self, kwargs: dict[str, Any], number: int, hidden: Tensor, stage: Stage, running: Pass) -> dict[str, Any]:
        """The arguments of a layer after a cut: its own mask, rotary tables of the surviving tokens."""
        key = (stage.first_layer, layer_type(self.config, number))
        if key not in running.masks:
            given = kwargs.get("attention_mask") if running.prefill else None
            running.masks[key] = stage_mask(self.config, number, hidden, stage, kwargs.get("past_key_values"), given)
        # position_ids would only make flash attention look for packed sequences, which gathered positions resemble.
        kwargs = {**kwargs, "attention_mask": running.masks[key], "position_ids": None}
        if running.prefill:
            kwargs["position_embeddings"] = tuple(
                self._gathered(table, stage, running) for table in kwargs["position_embeddings"]
            )
        return kwargs

    def _gathered(self, table: Tensor, stage: Stage, running: Pass) -> Tensor:
        """Rotary tables are shared by the layers of a stage, so each is gathered once."""
        for source, gathered in running.rotary:
            if source is table:
                return gathered
        gathered = take(table, stage.index)
        running.rotary.append((table, gathered))
        return gathered


def _is_empty(cache: Any, n_new: int, state: PromptState | None) -> bool:
    """Whether a cache holds nothing yet. One new token on a cache that knows its prompt is decoding: nothing is asked."""
    if state is not None and n_new == 1:
        return False
    return int(cache.get_seq_length()) == 0
