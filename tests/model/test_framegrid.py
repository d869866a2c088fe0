"""Videos as a grid of frames: which frames, where they stand, and prompts that mix them with images."""

import numpy as np
import pytest
from PIL import Image

import llava
from llava.errors import BadInput
from llava.model.framegrid import open_as_grid


def film(n_frames=16, size=8):
    return np.stack([np.full((size, size, 3), 10 * number, dtype=np.uint8) for number in range(n_frames)])


def test_first_to_last_frame_in_the_order_of_reading():
    grid = np.asarray(open_as_grid(film()))
    assert grid.shape == (16, 16, 3)
    assert grid[[0, 0, 8, 8], [0, 8, 0, 8], 0].tolist() == [0, 50, 100, 150]  # frames 0, 5, 10, 15


def test_a_grid_is_made_once():
    grid = open_as_grid(film())
    assert open_as_grid(grid) is grid


@pytest.fixture(scope="module")
def processor():
    return llava.load()[1]


def test_a_video_is_asked_like_an_image(processor):
    grid = open_as_grid(film())
    asked = processor(processor.prompt("Which?", 0, 1), videos=[[film()]])
    same = processor(processor.prompt("Which?"), [[grid]])
    assert asked["input_ids"].equal(same["input_ids"]) and asked["pixel_values"].equal(same["pixel_values"])


def test_images_and_videos_stand_in_the_order_of_the_text(processor):
    image = Image.new("RGB", (16, 16), (200, 0, 0))
    mixed = processor("<video> then <image>", [[image]], [[film()]])
    apart = processor("<image> then <image>", [[open_as_grid(film()), image]])
    assert mixed["input_ids"].equal(apart["input_ids"]) and mixed["pixel_values"].equal(apart["pixel_values"])


def test_too_few_markers_are_refused(processor):
    with pytest.raises(BadInput, match="1 <image> markers but 2 images"):
        processor("<video>", [[Image.new("RGB", (16, 16))]], [[film()]])
