"""Vision blocks that nothing reads are left out, and nothing else changes."""

import functools

import pytest
import torch

from llava import DART, FasterVLM, NoReduction, PruMerge, ToMe
from tests import tiny
from tests.model.sharing_batches import questions
from tests.tiny import error


@functools.cache
def built():
    return tiny.build("llava")  # three vision blocks, of which the second one feeds the projector


@pytest.fixture
def runs():
    """How often the attention of every vision block ran."""
    counts = [0, 0, 0]
    handles = []

    def count(number):
        counts[number] += 1

    for number, block in enumerate(built().model.vision_tower.encoder.layers):
        handles.append(block.self_attn.register_forward_hook(lambda *_, number=number: count(number)))
    yield counts
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    "method, expected",
    [
        (NoReduction(), [1, 1, 0]),
        (DART(keep=8), [1, 1, 0]),
        (FasterVLM(keep=8), [1, 1, 0]),
        (PruMerge(layer=-1), [1, 1, 1]),  # it reads the last block
        (ToMe(keep=8), [1, 1, 1]),  # it works in the blocks itself
    ],
)
def test_blocks_after_the_last_one_that_is_read_do_not_run(method, expected, runs):
    with torch.no_grad(), method(built()):
        tiny.generate(built(), questions([1]), 1)
    assert runs == expected


def test_features_are_the_same_to_the_bit():
    batch = questions([1, 2], [0, 1])
    with torch.no_grad():
        expected = built().get_image_features(pixel_values=batch["pixel_values"], return_dict=True).pooler_output
        with NoReduction()(built()):
            found = built().get_image_features(pixel_values=batch["pixel_values"], return_dict=True).pooler_output
    assert all(map(torch.equal, found, expected))


def test_the_tower_by_itself_runs_whole(runs):
    pixels = questions([1])["pixel_values"]
    with torch.no_grad():
        expected = built().model.vision_tower(pixels).last_hidden_state
        with NoReduction()(built()):
            assert error(built().model.vision_tower(pixels).last_hidden_state, expected) == 0
    assert runs == [2, 2, 2]
