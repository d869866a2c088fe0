"""Every model of this package, pruned by any of its methods, as a model of lmms-eval (0.7).

python -m lmms_eval --model llava_dart --model_args pretrained=FOLDER,method=dart,keep=128 --tasks pope --batch_size 8

Needs lmms-eval installed; nothing else of this package imports this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

import llava
from llava.errors import BadInput, ConfigurationError, UnsupportedModel
from llava.methodoptions import MethodOptions
from llava.model.families import family_of

NO_LIKELIHOODS = (
    "llava_dart generates answers and gives no likelihoods of given ones: choose a task whose output_type is "
    "generate_until."
)
ONE_ROUND = "llava_dart answers one question at a time: choose a task whose output_type is generate_until."


class PrunedModel(lmms):
    """A model under a reduction method, asked through lmms-eval.

    Args:
        pretrained: folder or hub name of a checkpoint; default: the embedded llava-nano.
        method: reduction method, `none` for no pruning.
        keep: visual tokens left per image, a count or a fraction.
        reduction_ratio, max_num_tokens: budget as in the released scripts.
        layer: decoder layer whose input is cut.
        options: further options of the method, `pivots_visual=8;pivots_text=2`.
        dtype, attn_implementation: as in `llava.load`.
        min_pixels, max_pixels: limits of the pixels images are resized to (Qwen-VL).
        seed: for methods that draw.
        batch_size, max_batch_size, device: from lmms-eval's own command line.

    Raises:
        ConfigurationError: everything that is wrong with the options.
        UnsupportedModel: the method cannot work with this model.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        method: str = "dart",
        keep: int | float | str | None = None,
        reduction_ratio: float | None = None,
        max_num_tokens: int | None = None,
        layer: int | None = None,
        options: str = "",
        dtype: str | None = None,
        attn_implementation: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ):
        super().__init__()
        if unknown:
            raise ConfigurationError(f"Unknown in --model_args: {', '.join(sorted(unknown))}.")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ConfigurationError(f"--batch_size {batch_size} is not usable: give a whole number from 1.")
        self.batch_size = int(batch_size)
        model, self.processor = llava.load(
            pretrained, device=device, dtype=dtype, attn_implementation=attn_implementation
        )
        self.processor.configure(min_pixels=min_pixels, max_pixels=max_pixels)
        self._model = model
        chosen = MethodOptions(
            method=method,
            keep=keep,
            reduction_ratio=reduction_ratio,
            max_num_tokens=max_num_tokens,
            layer=layer,
            set=tuple(one for one in str(options).split(";") if one),
        )
        variants = chosen.variants()
        if len(variants) > 1:
            raise ConfigurationError("lmms-eval runs one method with one budget at a time: give one of each.")
        self.method = variants[0].build(family_of(model).budget_rule, seed=seed)
        self.method(model)  # refuses here what cannot work

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the answers, in the order of the requests; prompts of like length are answered together."""
        order = sorted(range(len(requests)), key=lambda place: -len(requests[place].args[0]))
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for place in order:
            groups.setdefault(repr(sorted(requests[place].args[1].items())), []).append(place)
        with self.method(self._model), tqdm(total=len(requests), desc="Answers", unit="q") as bar:
            for places in groups.values():
                for first in range(0, len(places), self.batch_size):
                    batch = places[first : first + self.batch_size]
                    for place, answer in zip(batch, self._answers([requests[p].args for p in batch]), strict=True):
                        answers[place] = answer
                        self.cache_hook.add_partial("generate_until", requests[place].args[:2], answer)
                    bar.update(len(batch))
        return answers

    def _answers(self, batch: Sequence[tuple]) -> list[str]:
        prompts, pictures, films = [], [], []
        for context, _, to_visual, number, task, split in batch:
            media = [one for one in to_visual(self.task_dict[task][split][number]) or [] if one is not None]
            videos = [one for one in media if isinstance(one, str)]
            images = [one for one in media if not isinstance(one, str)]
            prompts.append(self.processor.prompt(context, n_images=len(images), n_videos=len(videos)))
            pictures.append(images)
            films.append(videos)
        inputs = self.processor(prompts, pictures, films)
        wanted = batch[0][1]
        with torch.inference_mode():
            ids = self._model.generate(**inputs, **generation_options(wanted))
        texts = self.processor.decode(ids[:, inputs["input_ids"].shape[1] :])
        return [cut(text, wanted.get("until")) for text in texts]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: this model only generates."""
        raise UnsupportedModel(NO_LIKELIHOODS)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse: every question is a conversation of its own."""
        raise UnsupportedModel(ONE_ROUND)


def generation_options(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `generate()` for a task's `generation_kwargs`; without `do_sample` decoding is greedy.

    Raises:
        BadInput: beam search, under which a method inside the model cannot work.
    """
    if int(wanted.get("num_beams") or 1) != 1:
        raise BadInput(f"num_beams={wanted['num_beams']}: only greedy decoding and sampling are possible, one beam.")
    chosen: dict[str, Any] = {"max_new_tokens": int(wanted.get("max_new_tokens") or 128), "do_sample": False}
    if wanted.get("do_sample"):
        sampling = {name: wanted[name] for name in ("temperature", "top_p", "top_k") if wanted.get(name)}
        chosen.update(sampling, do_sample=True)
    return chosen


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """Return the text up to the first of the strings that end an answer."""
    for end in [until] if isinstance(until, str) else until or ():
        text = text.split(end)[0] if end.strip() else text
    return text.strip()
