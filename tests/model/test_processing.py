"""Prompt, tokenisation and pixels against independent references: SentencePiece itself, numpy, transformers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from llava.errors import BadInput
from llava.model.conversation import template
from llava.model.images import load_image, pad_to_square, pixel_values
from llava.model.processing.llava import LlavaProcessor
from tests.model.llava_folder import CLIP_MEAN, CLIP_STD, SIDE, official_ids, write_tokenizer

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
BOS, EOS, NEWLINE = 1, 2, 13
N_VISUAL = 4


def as_older_conversions(folder):
    """Rewrite tokenizer.json with the normaliser of converted Llama checkpoints, to be read as it stands."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, blanks]}
    content["pre_tokenizer"] = None
    file.write_text(json.dumps(content))
    settings = folder / "tokenizer_config.json"
    content = {**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(content))


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json", "older tokenizer.json"])
def processor(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    image_id = write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if "json" in request.param:
        tokenizer.save_pretrained(folder / "converted")
        if "older" in request.param:
            as_older_conversions(folder / "converted")
        tokenizer = AutoTokenizer.from_pretrained(folder / "converted")
    return LlavaProcessor(
        tokenizer,
        image_size=SIDE,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        n_visual=N_VISUAL,
        image_token_id=image_id,
    )


def noise(width, height, mode="RGB"):
    channels = len(mode)
    data = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(data.squeeze(), mode) if channels == 1 else Image.fromarray(data)


# ------------------------------------------------------------------------------------------------- prompt


def test_prompt_is_vicuna_v1_to_the_letter(processor):
    assert processor.prompt("Is there a dog?") == f"{SYSTEM} USER: <image>\nIs there a dog? ASSISTANT:"
    assert processor.prompt("Hi", n_images=0) == f"{SYSTEM} USER: Hi ASSISTANT:"
    assert processor.prompt("Hi", n_images=2) == f"{SYSTEM} USER: <image>\n<image>\nHi ASSISTANT:"


def test_prompt_of_several_turns(processor):
    turns = [("One?", "Yes."), ("Two?", None)]
    assert processor.prompt(turns) == f"{SYSTEM} USER: <image>\nOne? ASSISTANT: Yes.</s>USER: Two? ASSISTANT:"


def test_markers_stay_where_the_user_put_them(processor):
    text = "Compare <image> with <image>."
    assert processor.prompt(text, n_images=2) == f"{SYSTEM} USER: {text} ASSISTANT:"
    with pytest.raises(BadInput, match="2 <image> markers but there are 3 images"):
        processor.prompt(text, n_images=3)


def test_unknown_template():
    with pytest.raises(BadInput, match="Known: .*vicuna_v1"):
        template("vicuna_v9")


# ------------------------------------------------------------------------------------------------- tokens


def test_ids_are_those_of_sentencepiece_in_two_halves(processor):
    prompt = processor.prompt("Is there a red circle?")
    first, second = prompt.split("<image>")
    before, after = official_ids(first), official_ids(second)
    expected = [BOS, *before, *[processor.image_token_id] * N_VISUAL, *after]
    assert processor.token_ids(prompt, [N_VISUAL]) == expected
    assert expected.index(processor.image_token_id) == 1 + len(before)


def test_text_after_the_image_begins_with_a_blank_piece_and_a_newline(processor):
    """In Llama's vocabulary these are 29871 and 13; a tokenizer that leaves the first out is off by one token."""
    ids = processor.token_ids(processor.prompt("Hi"), [N_VISUAL])
    start = max(i for i, token in enumerate(ids) if token == processor.image_token_id) + 1
    assert ids[start : start + 2] == [official_ids(" ")[-1], NEWLINE] == official_ids("\n")
    assert processor.tokenizer.convert_ids_to_tokens(ids[start]) == "▁"


@pytest.mark.parametrize(
    "text", ["Image: <image> and <image>  the\nend", " <image>", "日本 <image>\n\n\tx  y ", "<image>"]
)
def test_blanks_and_rare_characters_around_markers(processor, text):
    pieces = [official_ids(piece) for piece in text.split("<image>")]
    expected = [BOS, *pieces[0]]
    for piece in pieces[1:]:
        expected += [processor.image_token_id] * N_VISUAL + piece
    assert processor.token_ids(text, [N_VISUAL] * text.count("<image>")) == expected


def test_text_after_an_answer_starts_afresh(processor):
    prompt = processor.prompt([("One?", "Yes."), ("Two?", None)], 0)
    first, second = prompt.split("</s>")
    assert processor.token_ids(prompt, []) == [BOS, *official_ids(first), EOS, *official_ids(second)]


def test_batch_is_left_padded(processor):
    prompts = [processor.prompt("Is there a red circle in the image?"), processor.prompt("Hi", 0)]
    batch = processor(prompts, [[noise(30, 20)], []])
    alone = [processor.token_ids(prompts[0], [N_VISUAL]), processor.token_ids(prompts[1], [])]
    assert batch["pixel_values"].shape == (1, 3, SIDE, SIDE) and batch["pixel_values"].dtype == torch.float32
    for row, ids, mask in zip(alone, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        filler = len(ids) - len(row)
        assert ids[filler:] == row and mask == [0] * filler + [1] * len(row)
        assert set(ids[:filler]) <= {processor.tokenizer.pad_token_id}


def test_several_images_in_one_prompt_keep_their_order(processor):
    images = [noise(30, 20), noise(20, 30)]
    batch = processor(processor.prompt("Compare.", 2), [images])
    assert (batch["input_ids"] == processor.image_token_id).sum() == 2 * N_VISUAL
    assert torch.equal(batch["pixel_values"], torch.stack([processor.pixel_values(image) for image in images]))


def test_no_image_no_pixels(processor):
    assert set(processor([processor.prompt("Hi", 0)])) == {"input_ids", "attention_mask"}


def test_counts_that_differ(processor):
    with pytest.raises(BadInput, match="1 <image> markers but 2 images"):
        processor(processor.prompt("Hi"), [[noise(8, 8), noise(8, 8)]])
    with pytest.raises(BadInput, match="1 <image> markers but 0 images"):
        processor(processor.prompt("Hi"))
    with pytest.raises(BadInput, match="2 prompts but 1 lists"):
        processor(["a", "b"], [[]])
    with pytest.raises(BadInput, match="no prompt"):
        processor([])


def test_decode_drops_specials_and_strips(processor):
    ids = [BOS, *official_ids(" yes, red"), processor.image_token_id, EOS, processor.tokenizer.pad_token_id]
    assert processor.decode(torch.tensor([ids, ids])) == ["yes, red"] * 2


# ------------------------------------------------------------------------------------------------- pixels


def reference_pixels(image):
    """Pad in numpy, resize by Pillow, normalise in float64."""
    array = np.asarray(image.convert("RGB"))
    height, width, _ = array.shape
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = (122, 116, 104)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = array
    small = np.asarray(Image.fromarray(square).resize((SIDE, SIDE), resample=3), np.float64) / 255
    return ((small - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(40, 40), (41, 30), (30, 41), (97, 12), (5, 2), (28, 28), (200, 199)])
def test_pixels_against_numpy(processor, size):
    image = noise(*size)
    assert np.abs(processor.pixel_values(image).numpy() - reference_pixels(image)).max() < 1e-5


@pytest.mark.parametrize("size", [(41, 30), (30, 97)])
def test_pixels_against_transformers_with_padding_switched_on(size):
    module = pytest.importorskip("transformers.models.llava.image_processing_pil_llava")
    other = module.LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=CLIP_MEAN
    )
    image = noise(*size)
    theirs = other(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(pixel_values(image, SIDE, CLIP_MEAN, other.image_std), theirs, atol=1e-5)


def test_padding_is_at_the_floor_of_half_the_difference():
    square = np.asarray(pad_to_square(Image.new("RGB", (5, 2), (1, 2, 3)), (9, 9, 9)))
    assert (square[1:3] == (1, 2, 3)).all() and (square[[0, 3, 4]] == 9).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (9, 6), (250, 10, 10)).convert(mode).save(file)
    assert load_image(file).mode == "RGB" and load_image(str(file)).size == (9, 6)


# ------------------------------------------------------------------------------------------------- bad images


def test_bad_image_files(tmp_path):
    whole = tmp_path / "whole.png"
    noise(60, 60).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:4000])
    words = tmp_path / "words.jpg"
    words.write_text("not a picture")
    program = tmp_path / "program.png"
    Image.new("RGB", (20, 20)).save(program, "EPS")  # Pillow would start Ghostscript to read it
    for path, message in [
        (tmp_path / "absent.png", "No image at"),
        (tmp_path, "is not a file"),
        (cut, "damaged or cut short"),
        (words, "is not an image"),
        (program, "is not an image"),
    ]:
        with pytest.raises(BadInput if path != tmp_path / "absent.png" else Exception, match=message) as error:
            load_image(path)
        assert "\n" not in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (1000, 5), (1, 50)])
def test_absurd_sizes(size):
    with pytest.raises(BadInput, match=f"{size[0]} x {size[1]} pixels: sides from 2 to 16384"):
        load_image(Image.new("RGB", size))


def test_links(tmp_path):
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    noise(12, 9).save(tmp_path / "image.png")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        link = f"http://127.0.0.1:{server.server_port}"
        assert load_image(f"{link}/image.png").size == (12, 9)
        with pytest.raises(BadInput, match="could not be downloaded"):
            load_image(f"{link}/absent.png")
    finally:
        server.shutdown()
        server.server_close()
