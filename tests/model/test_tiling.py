"""LLaVA-NeXT's tiles: token counts of the model card, the official formulas written out again, transformers' pixels."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from llava.model import tiling

SIDE, PATCHES, BASE = 336, 24, 576
RESOLUTIONS = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
TABLE = {  # size: (canvas, visual tokens), from the model card
    (672, 672): ((672, 672), 2928),
    (1000, 1000): ((672, 672), 2928),
    (640, 480): ((672, 672), 2340),
    (500, 375): ((672, 672), 2340),
    (1024, 768): ((672, 672), 2340),
    (480, 640): ((672, 672), 2352),
    (640, 427): ((672, 672), 2144),
    (1024, 683): ((672, 672), 2144),
    (1280, 720): ((672, 672), 1948),
    (1920, 1080): ((672, 672), 1948),
    (1000, 300): ((1008, 336), 2182),
    (300, 1000): ((336, 1008), 2232),
    (2000, 400): ((1008, 336), 1598),
    (336, 336): ((336, 672), 1176),
    (224, 224): ((336, 672), 1176),
    (100, 32): ((336, 672), 776),  # both sides within one tile: transformers takes 672 x 336 and has 1360
    (752, 423): ((672, 672), 1850),  # floating-point noise: transformers rounds it away and has 1948
}


def official_count(width, height):
    """The official functions, written out once more from the card, one number at a time."""
    best = None
    for canvas_w, canvas_h in RESOLUTIONS:
        scale = min(canvas_w / width, canvas_h / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = canvas_w * canvas_h - effective
        if best is None or effective > best[0] or (effective == best[0] and wasted < best[1]):
            best = (effective, wasted, canvas_w, canvas_h)
    columns, rows = PATCHES * best[2] // SIDE, PATCHES * best[3] // SIDE
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(height * (columns / width))) // 2)
    else:
        columns -= 2 * ((columns - int(width * (rows / height))) // 2)
    return BASE + rows * (columns + 1)


def count(size):
    """Tokens of an image as processor and model count them."""
    told = tiling.size_for_transformers(size, RESOLUTIONS, SIDE, PATCHES)
    return tiling.packed_length(BASE, tiling.shown_in(told, RESOLUTIONS, SIDE, PATCHES))


@pytest.mark.parametrize(("size", "expected"), TABLE.items(), ids=str)
def test_table_of_the_model_card(size, expected):
    assert (tiling.best_resolution(size, RESOLUTIONS), count(size)) == expected
    assert official_count(*size) == expected[1]


def test_random_sizes_against_the_official_formulas():
    draw = random.Random(0)
    sizes = [(draw.randint(2, 2000), draw.randint(2, 2000)) for _ in range(1500)]
    sizes += [(draw.randint(2, 336), draw.randint(2, 336)) for _ in range(300)]
    sizes += [(16 * k, 9 * k) for k in range(1, 120)] + [(3 * k, 2 * k) for k in range(1, 300)]
    assert [size for size in sizes if count(size) != official_count(*size)] == []


def test_model_told_the_size_packs_that_many():
    """transformers' own functions, with the list in the order that the adapter writes into the config."""
    from transformers.models.llava_next import modeling_llava_next as theirs

    pinpoints = [[height, width] for width, height in RESOLUTIONS]
    for size in TABLE:
        width, height = tiling.size_for_transformers(size, RESOLUTIONS, SIDE, PATCHES)
        down, across = theirs.get_anyres_image_grid_shape((height, width), pinpoints, SIDE)
        map_ = torch.zeros(1, PATCHES * down, PATCHES * across)
        _, rows, columns = theirs.unpad_image(map_, (height, width)).shape
        assert BASE + rows * (columns + 1) == TABLE[size][1]


def test_newlines_end_the_rows():
    assert tiling.newline_offsets(4, (3, 2)) == [7, 11]
    assert tiling.packed_length(4, (3, 2)) == 12
    assert tiling.newline_offsets(4, (0, 0)) == [] and tiling.packed_length(4, (5, 0)) == 4


def test_extreme_strips_have_no_rows_left():
    assert count((1600, 16)) == official_count(1600, 16)
    assert count((16000, 160)) == official_count(16000, 160) == BASE


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (90, 31), (31, 90), (56, 56), (200, 100)])
def test_pixels_against_transformers(size):
    """Images larger than a tile, where both take the same grid."""
    module = pytest.importorskip("transformers.models.llava_next.image_processing_pil_llava_next")
    side, resolutions = 28, [(28, 56), (56, 28), (56, 56), (84, 28), (28, 84)]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    processor = module.LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[list(pair) for pair in resolutions],
        do_normalize=False,
        do_rescale=False,
    )
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    canvas = tiling.best_resolution(size, resolutions)
    ours = np.stack([np.asarray(tile).transpose(2, 0, 1) for tile in tiling.tiles(image, canvas, side)])
    assert ours.shape == tuple(theirs.shape)
    assert np.array_equal(ours, theirs.numpy())


def test_whole_image_first_then_tiles_row_by_row():
    image = Image.new("RGB", (56, 28))
    image.paste((255, 0, 0), (0, 0, 28, 28))
    whole, left, right = (np.asarray(tile) for tile in tiling.tiles(image, (56, 28), 28))
    assert whole.shape == (28, 28, 3) and whole[:, 2, 0].min() == 255 and whole[:, -2, 0].max() == 0
    assert (left[..., 0] == 255).all() and not right.any()


def test_border_is_black_and_centred():
    parts = tiling.tiles(Image.new("RGB", (100, 33), (9, 9, 9)), (56, 28), 28)[1:]
    canvas = np.concatenate([np.asarray(part) for part in parts], axis=1)
    height = math.ceil(33 * 0.56)
    top = (28 - height) // 2
    assert (canvas[top : top + height] == 9).all() and not canvas[:top].any() and not canvas[top + height :].any()
