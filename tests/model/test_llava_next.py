"""LLaVA-NeXT: token counts from image to model, the order of the grid, DART's budget rule, pruning with newlines."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaNextConfig, LlavaNextForConditionalGeneration

import llava
from llava import DART
from llava.errors import CheckpointError
from llava.model.families import family_of
from llava.model.families.llava_next import official_resolutions
from llava.model.processing.llava_next import LlavaNextProcessor
from llava.reduction import registry
from tests.model.llava_folder import CLIP_MEAN, CLIP_STD, PINPOINTS, TEXT, VISION, write_checkpoint, write_tokenizer
from tests.model.test_tiling import RESOLUTIONS, TABLE


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("next") / "checkpoint", tiled=True)


@pytest.fixture(scope="module")
def loaded(folder):
    return llava.load(folder)


@pytest.fixture(scope="module")
def real_size(tmp_path_factory):
    """A processor and a one-layer tower of the published image and patch sizes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    image_id = write_tokenizer(folder)
    config = LlavaNextConfig(
        vision_config={**VISION, "image_size": 336, "num_hidden_layers": 1},
        text_config={"model_type": "llama", **TEXT, "num_hidden_layers": 1, "vocab_size": 512},
        image_token_index=image_id,
        image_grid_pinpoints=[[height, width] for width, height in RESOLUTIONS],
        vision_feature_layer=-2,
    )
    processor = LlavaNextProcessor(
        AutoTokenizer.from_pretrained(folder),
        resolutions=RESOLUTIONS,
        patches=24,
        image_size=336,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        n_visual=576,
        image_token_id=image_id,
    )
    return LlavaNextForConditionalGeneration(config).eval(), processor


@pytest.mark.parametrize(("size", "expected"), TABLE.items(), ids=str)
def test_counts_of_the_card_from_image_to_model(real_size, size, expected):
    model, processor = real_size
    inputs = processor(processor.prompt("Hi"), [[noise(*size)]])
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    assert (inputs["input_ids"] == processor.image_token_id).sum() == expected[1] == len(features[0])
    family = family_of(model)
    assert family.image_lengths(model, inputs) == [expected[1]]


def test_newlines_are_where_the_model_puts_its_vector(loaded):
    model, processor = loaded
    inputs = processor(processor.prompt("Hi", 2), [[noise(50, 30), noise(20, 90)]])
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    vector = model.model.image_newline
    found = [(image == vector).all(-1).nonzero().squeeze(1).tolist() for image in features]
    assert family_of(model).newlines(model, inputs) == found and all(found)


def test_grid_of_the_official_code_for_small_images(loaded, folder):
    """The published list is (width, height); transformers reads it the other way round."""
    model, processor = loaded
    assert json.loads((folder / "config.json").read_text())["image_grid_pinpoints"] == PINPOINTS
    assert model.config.image_grid_pinpoints == [[height, width] for width, height in PINPOINTS]
    assert processor(processor.prompt("Hi"), [[noise(20, 20)]])["pixel_values"].shape == (1, 3, 3, 28, 28)
    upright = processor.tiles(Image.new("RGB", (20, 10), (255, 255, 255)))
    assert len(upright) == 3 and not torch.equal(upright[1], upright[2])


def test_lists_that_are_no_copies_are_read_as_transformers_does():
    assert official_resolutions([(336, 672), (672, 336)], original=False) == [(336, 672), (672, 336)]
    assert official_resolutions([(336, 672), (336, 1008)], original=False) == [(672, 336), (1008, 336)]
    assert official_resolutions([(336, 672), (336, 1008)], original=True) == [(336, 672), (336, 1008)]


def test_same_logits_as_transformers_with_its_own_processor(folder, loaded):
    """Images larger than a tile have the same grid in both."""
    module = pytest.importorskip("transformers.models.llava_next.image_processing_pil_llava_next")
    model, processor = loaded
    images = [noise(50, 37), noise(90, 31), noise(60, 60)]
    theirs = module.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=PINPOINTS,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )(images, return_tensors="pt")
    ours = processor([processor.prompt("Is there a dog?")] * 3, [[image] for image in images])
    assert torch.allclose(ours["pixel_values"], theirs["pixel_values"], atol=1e-5)
    assert torch.equal(ours["image_sizes"], theirs["image_sizes"])
    plain = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = {name: ours[name] for name in ("input_ids", "attention_mask")}
    real = ours["attention_mask"].bool()
    assert torch.allclose(plain(**inputs, **theirs).logits[real], model(**ours).logits[real], atol=1e-5)


def test_batches_of_different_tiles_are_filled_up(loaded):
    _, processor = loaded
    batch = processor(["<image>a", "<image>b<image>", "c"], [[noise(20, 20)], [noise(60, 60), noise(25, 90)], []])
    assert batch["pixel_values"].shape == (3, 5, 3, 28, 28) and batch["image_sizes"].tolist() == [
        [20, 20],
        [60, 60],
        [90, 25],
    ]
    assert not batch["pixel_values"][0, 3:].any()


@pytest.mark.parametrize("generating", [False, True])
@pytest.mark.parametrize(
    "method", [DART(keep=6, pivots_visual=1, pivots_text=1, layer=2), registry.create("divprune", keep=6)], ids=str
)
def test_newlines_are_counted_apart(loaded, method, generating):
    model, processor = loaded
    images = [[noise(50, 30)], [noise(20, 90), noise(20, 20)], []]
    inputs = processor(["<image>Hi", "<image><image>b", "c"], images)
    with method(model) as pruning:
        model.generate(**inputs, max_new_tokens=2) if generating else model(**inputs)
    ends = family_of(model).newlines(model, inputs)
    report = pruning.last
    assert report.newlines == [len(ends[0]), len(ends[1]) + len(ends[2]), 0] and report.newlines[0] == 2
    kept = [[int(i) for i in image] for sample in report.indices for image in sample]
    among = [len(set(own) & set(end)) for own, end in zip(kept, ends, strict=True)]
    assert report.newlines_kept == [among[0], among[1] + among[2], 0]
    assert f"of them newlines {sum(report.newlines)} in 3 samples -> {sum(among)} in 3 samples" in report.line()
    assert pruning.summary()["newlines"] == sum(report.newlines) / 3


@pytest.mark.parametrize("generating", [False, True])
def test_neighbouring_images_are_told_apart_when_pruned(loaded, generating):
    model, processor = loaded
    inputs = processor("<image><image>Hi", [[noise(50, 30), noise(20, 90)]])
    lengths = family_of(model).image_lengths(model, inputs)
    with DART(keep=5, pivots_visual=1, pivots_text=1, layer=2)(model) as pruning:
        model.generate(**inputs, max_new_tokens=2) if generating else model(**inputs)
    assert [len(image) for image in pruning.last.indices[0]] == [5, 5] and pruning.last.visual == [sum(lengths)]


def test_released_rule():
    """Card of DART: 4 visual pivots and floor(320 / 8) for each of 8 pivots keep 324 of any NeXT image."""
    from llava.model.families.llava_next import LlavaNext

    method = DART.from_released(LlavaNext.budget_rule, 0.778, 128)
    assert [method.n_kept(n) for n in (2928, 2340, 1176)] == [324, 324, 324]


def test_list_that_is_no_list(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "image_grid_pinpoints": [336]}))
    with pytest.raises(CheckpointError):
        llava.load(copy)
