"""The compiled path at work on a model: around `generate()`, and after the last cut of a prefill."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llava.model.fast import refusals
from llava.model.fast.compiler import Compiler
from llava.model.fast.decode import Decoding, Pool, spans
from llava.model.fast.options import Fast
from llava.model.fast.tail import Tail
from llava.model.masks import prompt_padding
from llava.model.wrapping import Wrappers


class FastPath:
    """Compiles what can be compiled of one model.

    Args:
        model: a vision-language model of transformers.
        decoder: its text model.
        options: see `Fast`.
        state_name: attribute of a cache that holds the cuts of its prompt.
        tail: whether the last layers may be run at once; not where something happens between them (Qwen3-VL).

    Attributes:
        reason: why nothing is compiled; None as long as it is.
        tail: for the layers after the last cut; None where it cannot be used.
    """

    def __init__(self, model: Any, decoder: Any, options: Fast, state_name: str, tail: bool = True):
        self.model, self.decoder, self.state_name, self.has_tail = model, decoder, state_name, tail
        self.compiler = Compiler(options, model.device)
        self.tail: Tail | None = None
        self.wrappers = Wrappers()

    @property
    def reason(self) -> str | None:
        return self.compiler.reason

    def install(self) -> None:
        """Wrap the model's `generate`, unless it cannot be compiled; the reason is told."""
        reason = refusals.of_model(self.model, self.decoder)
        if reason is not None:
            self.compiler.give_up(reason)
            return
        self.tail = Tail(self.decoder, self.compiler) if self.has_tail else None
        self.pool = Pool(self.decoder.config, self.compiler.options)
        self.wrappers.wrap(self.model, "generate", self._around_generate)

    def remove(self) -> None:
        """Give the model back as it was, and the memory of the caches."""
        self.wrappers.unwrap_all()
        self.tail, self.pool = None, Pool(self.decoder.config, self.compiler.options)

    def _around_generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.compiler.reason is not None:
            return original(*args, **kwargs)
        named = {**dict(zip(inspect.signature(original).parameters, args, strict=False)), **kwargs}
        reason = refusals.of_call(self.model, named)
        if reason is not None:
            self.compiler.say(f"The fast path is not used for decoding here: {reason}.")
            return original(*args, **kwargs)
        loop = functools.partial(self._generated, named.get("streamer"))
        return original(**{**named, "custom_generate": _with_signature(loop)})

    def _generated(
        self,
        streamer: Any,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Tensor:
        """The decoding loop of transformers' greedy search and sampling, with the compiled step."""
        finished_by_id = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        pad, draws = generation_config._pad_token_tensor, generation_config.do_sample
        outputs = self._prefill(model, input_ids, generation_config, model_kwargs)
        logits = outputs.logits[:, -1].float()
        cache, n_prompt = outputs.past_key_values, input_ids.shape[1]
        del outputs
        positions = self._positions(model_kwargs, input_ids)
        unfinished = torch.ones(len(input_ids), dtype=torch.long, device=input_ids.device)
        decoding: Decoding | None = None
        while True:
            scores = logits_processor(input_ids, logits)
            if draws:
                newest = torch.multinomial(torch.nn.functional.softmax(scores, dim=-1), num_samples=1)[:, 0]
            else:
                newest = scores.argmax(-1)
            if finished_by_id:
                newest = newest * unfinished + pad * (1 - unfinished)
            input_ids = torch.cat([input_ids, newest[:, None]], dim=-1)
            if streamer is not None:
                streamer.put(newest.cpu())
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            if not unfinished.any():
                break
            if decoding is None:
                decoding = self._decoding(cache, model_kwargs, n_prompt, generation_config.max_length - n_prompt)
            logits = decoding.step(newest[:, None], positions)
            positions = positions + 1
        if streamer is not None:
            streamer.end()
        return input_ids

    def _prefill(self, model: Any, *arguments: Any) -> Any:
        tail = self.tail
        if tail is None:
            return model._prefill(*arguments)
        tail.at_work = True
        try:
            return model._prefill(*arguments)
        finally:
            tail.at_work = False

    def _decoding(self, cache: Any, model_kwargs: dict[str, Any], n_prompt: int, n_new: int) -> Decoding:
        padding = prompt_padding(model_kwargs.get("attention_mask"), n_prompt)
        parts = spans(cache, getattr(cache, self.state_name, None), padding)
        return Decoding(self.model, self.decoder, self.compiler, self.pool, cache, parts, n_new)

    def _positions(self, model_kwargs: dict[str, Any], ids: Tensor) -> Tensor:
        """The positions of the next token: (B, 1), or (k, B, 1)."""
        positions = model_kwargs.get("position_ids")
        if positions is None:
            positions = self.model._prepare_position_ids_for_generation(ids, model_kwargs)
        return positions[..., -1:].expand(*positions.shape[:-2], len(ids), 1) + 1


def _with_signature(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, as generate() asks for one and looks at its parameters."""

    def decode(
        model: Any, input_ids: Any, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **rest: Any
    ) -> Any:
        return loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest)

    return decode
