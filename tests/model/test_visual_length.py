"""What a processor says an image will take is what the prompt then holds; batches of like length rest on it."""

import pytest
from PIL import Image

import llava
from tests.model import llava_folder, qwen_vl_folder

SIZES = [(56, 28), (30, 90), (84, 84)]


@pytest.fixture(scope="module", params=["llava_next", "qwen2_vl"])
def processor(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llava_next":
        llava_folder.write_checkpoint(folder, tiled=True)
    else:
        qwen_vl_folder.write_checkpoint(folder)
    return llava.load(folder, device="cpu")[1]


@pytest.mark.parametrize("size", SIZES)
def test_length_is_that_of_the_prompt(processor, size):
    image = Image.new("RGB", size)
    ids = processor(processor.prompt("x"), [[image]])["input_ids"][0].tolist()
    held = sum(token in processor.placeholders for token in ids)
    assert processor.lengths_vary and processor.visual_length(size) == held
