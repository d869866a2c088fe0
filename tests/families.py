"""One tiny random model per family, with batches of random images; no processor, no tokenizer, no files.

A family is covered by every test over `TINY` as soon as it has an entry here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from llava.model.minicpm_v.config import MiniCPMVConfig
from llava.model.minicpm_v.model import MiniCPMV
from tests.tiny import TEXT, TOWER

IMAGE, VIDEO, PAD, BEFORE, AFTER, WHOLE = 99, 98, 0, 90, 91, 92
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 6,
    "vision_use_head": False,
}
TEXT_PARTS = ((5, 7), (4, 0, 3, 6), (9,))  # text before, between and after the pictures of each sample
SAMPLES = ((0,), (1, 2, 3), ())  # pictures of each sample: one; three, two of them side by side; none

Pictures = Callable[[list[list[int]]], tuple[dict[str, Tensor], list[list[list[int]]]]]


@dataclass(frozen=True)
class TinyFamily:
    """How to make a family's tiny model and its inputs.

    Args:
        config: () -> (model class, configuration).
        pictures: picture numbers per sample -> (visual inputs, runs of placeholders of every picture per sample). The
            same number always gives the same picture.
        around: ids before and after every run of placeholders; `whole` stands before the last run instead.
        placeholder: id that stands for visual tokens.
        finish: ids -> further inputs.
    """

    config: Callable[[], tuple[Any, Any]]
    pictures: Pictures
    around: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    whole: tuple[int, ...] | None = None
    placeholder: int = IMAGE
    finish: Callable[[Tensor], dict[str, Tensor]] = lambda ids: {}

    def build(self, attention: str = "sdpa") -> Any:
        """Return the model in eval mode, float32, the same weights every time."""
        torch.manual_seed(0)
        model_class, config = self.config()
        model = model_class._from_config(config, attn_implementation=attention).eval().float()
        for parameter in model.parameters():
            if parameter.ndim >= 2:  # the default 0.02 makes all tokens nearly alike
                torch.nn.init.normal_(parameter, std=0.12)
        return model

    def batch(self, rows: tuple[int, ...] = (0, 1, 2)) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Return left-padded inputs of the samples in `rows`, and the visual tokens of their pictures."""
        numbers = [list(SAMPLES[row]) for row in rows]
        visual, runs = self.pictures(numbers) if any(numbers) else ({}, [[] for _ in numbers])
        ids = [self._ids(row, pictures) for row, pictures in zip(rows, runs, strict=True)]
        longest = max(map(len, ids))
        padded = torch.tensor([[PAD] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        inputs = {"input_ids": padded, "attention_mask": mask, **visual, **self.finish(padded)}
        return inputs, [[sum(picture) for picture in pictures] for pictures in runs]

    def _ids(self, row: int, pictures: list[list[int]]) -> list[int]:
        parts = [torch.randint(10, 90, (n,), generator=_seeded(100 * row + n)).tolist() for n in TEXT_PARTS[row]]
        ids = list(parts[0])
        for picture, text in zip(pictures, parts[1:], strict=True):
            for number, n in enumerate(picture):
                last = self.whole is not None and number == len(picture) - 1
                ids += [*(self.whole if last else self.around[0]), *[self.placeholder] * n, *self.around[1]]
            ids += text
        return ids


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noise(number: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=_seeded(1000 + number))


def _squares(n_tokens: int, side: int) -> Pictures:
    """One tower input and one run of placeholders per picture."""

    def pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
        pixels = torch.stack([_noise(number, 3, side, side) for sample in samples for number in sample])
        return {"pixel_values": pixels}, [[[n_tokens] for _ in sample] for sample in samples]

    return pictures


def _llava() -> tuple[Any, Any]:
    return transformers.LlavaForConditionalGeneration, transformers.LlavaConfig(
        vision_config=TOWER, text_config={"model_type": "llama", **TEXT}, image_token_id=IMAGE, vision_feature_layer=-2
    )


def _llava_next() -> tuple[Any, Any]:
    return transformers.LlavaNextForConditionalGeneration, transformers.LlavaNextConfig(
        vision_config=TOWER,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
        vision_feature_layer=-2,
    )


def _llava_next_pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
    """Even pictures have 40 x 44 pixels: 2 x 2 tiles, an 8 x 8 map. Odd ones 20 x 46: 1 x 2 tiles, a 4 x 8 map."""
    numbers = [number for sample in samples for number in sample]
    sizes = torch.tensor([[20, 46] if number % 2 else [40, 44] for number in numbers])
    pixels = torch.zeros(len(numbers), 5, 3, 24, 24)
    for tiles, number in zip(pixels, numbers, strict=True):
        tiles[: 3 if number % 2 else 5] = _noise(number, 3 if number % 2 else 5, 3, 24, 24)
    runs = [[[16 + (4 if number % 2 else 8) * 9] for number in sample] for sample in samples]
    return {"pixel_values": pixels, "image_sizes": sizes}, runs


def _onevision() -> tuple[Any, Any]:
    return transformers.LlavaOnevisionForConditionalGeneration, transformers.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
        vision_feature_layer=-1,
    )


def _onevision_pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
    """A single picture of 40 x 44 pixels: 2 x 2 tiles of 4 x 4 tokens, of whose 8 rows 8 are shown, and the whole."""
    sizes = torch.tensor([[40, 44] for sample in samples for _ in sample])
    pixels = torch.stack([_noise(number, 5, 3, 24, 24) for sample in samples for number in sample])
    counts = torch.tensor([len(sample) for sample in samples if sample])
    runs = [[[16 + 8 * 9] if len(sample) == 1 else [17] for _ in sample] for sample in samples]
    return {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": counts}, runs


def _internvl() -> tuple[Any, Any]:
    tower = {key: SIGLIP[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    tower |= {"num_hidden_layers": 2, "image_size": [24, 24], "patch_size": [3, 3]}
    return transformers.InternVLForConditionalGeneration, transformers.InternVLConfig(
        vision_config=tower, text_config={"model_type": "qwen2", **TEXT}, image_token_id=IMAGE, image_seq_length=16
    )


def _internvl_pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
    """Odd pictures have two tiles, in one run."""
    tiles = [_noise(number, 1 + number % 2, 3, 24, 24) for sample in samples for number in sample]
    return {"pixel_values": torch.cat(tiles)}, [[[16 * (1 + n % 2)] for n in sample] for sample in samples]


def _smolvlm(kind: str = "SmolVLM") -> tuple[Any, Any]:
    tower = {key: SIGLIP[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**tower, "num_hidden_layers": 2, "image_size": 48, "patch_size": 6},
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
        scale_factor=2,
    )
    config.whole_image_token_id = WHOLE
    return getattr(transformers, f"{kind}ForConditionalGeneration"), config


def _smolvlm_pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
    """Odd pictures have three tiles, even ones the whole only; every tile is a run."""
    n_tiles = [[3 if number % 2 else 1 for number in sample] for sample in samples]
    pixels = torch.zeros(len(samples), max(map(sum, n_tiles)), 3, 48, 48)
    for row, sample in enumerate(samples):
        if sample:
            tiles = torch.cat([_noise(n, tiles, 3, 48, 48) for n, tiles in zip(sample, n_tiles[row], strict=True)])
            pixels[row, : len(tiles)] = tiles
    return {"pixel_values": pixels}, [[[16] * tiles for tiles in sample] for sample in n_tiles]


def _gemma3() -> tuple[Any, Any]:
    tower = {key: SIGLIP[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    text = {**TEXT, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 256}
    return transformers.Gemma3ForConditionalGeneration, transformers.Gemma3Config(
        vision_config={**tower, "num_hidden_layers": 2, "image_size": 48, "patch_size": 6},
        text_config={**text, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2},
        image_token_id=IMAGE,
        mm_tokens_per_image=16,
        boi_token_id=BEFORE,
        eoi_token_id=AFTER,
    )


def _minicpm_v() -> tuple[Any, Any]:
    tower = {key: SIGLIP[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    tower |= {"num_hidden_layers": 2, "image_size": 60, "patch_size": 6}
    return MiniCPMV, MiniCPMVConfig(vision_config=tower, text_config=TEXT, query_num=12, image_token_id=IMAGE)


def _minicpm_v_pictures(samples: list[list[int]]) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
    """Odd pictures have two slices beside the overview; views differ in shape."""
    numbers = [number for sample in samples for number in sample]
    views = [(number, view) for number in numbers for view in range(3 if number % 2 else 1)]
    grids = [(4, 2 + number % 3) if view == 0 else (3, 4) for number, view in views]
    strips = torch.zeros(len(views), 3, 6, 6 * 16)
    for strip, (number, view), (rows, columns) in zip(strips, views, grids, strict=True):
        strip[:, :, : 6 * rows * columns] = _noise(10 * number + view, 3, 6, 6 * rows * columns)
    counts = torch.tensor([3 if number % 2 else 1 for number in numbers])
    inputs = {"pixel_values": strips, "tgt_sizes": torch.tensor(grids), "n_views": counts}
    return inputs, [[[12] * (3 if number % 2 else 1) for number in sample] for sample in samples]


TINY = {
    "llava": TinyFamily(_llava, _squares(16, 24)),
    "llava_next": TinyFamily(_llava_next, _llava_next_pictures),
    "llava_onevision": TinyFamily(_onevision, _onevision_pictures),
    "internvl": TinyFamily(_internvl, _internvl_pictures, around=((BEFORE,), (AFTER,))),
    "smolvlm": TinyFamily(_smolvlm, _smolvlm_pictures, around=((BEFORE, AFTER), ()), whole=(BEFORE, WHOLE)),
    "idefics3": TinyFamily(
        functools.partial(_smolvlm, "Idefics3"), _smolvlm_pictures, around=((BEFORE, AFTER), ()), whole=(BEFORE, WHOLE)
    ),
    "gemma3": TinyFamily(
        _gemma3,
        _squares(16, 48),
        around=((BEFORE,), (AFTER,)),
        finish=lambda ids: {"token_type_ids": (ids == IMAGE).long()},
    ),
    "minicpm_v": TinyFamily(_minicpm_v, _minicpm_v_pictures, around=((BEFORE,), (AFTER,))),
}
