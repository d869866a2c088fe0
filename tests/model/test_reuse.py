"""The store of what prompts about one image share: found by content, bounded, honest in what it counts."""

import pytest
import torch

from llava import Reuse
from llava.errors import ConfigurationError
from llava.model.encoding import without_filler
from llava.model.reuse import FEATURES, PREFIX, digest


def bytes_of(n):
    return torch.zeros(n, dtype=torch.uint8)


def keep(reuse, key, size):
    return reuse.put(FEATURES, key, bytes_of(size), size)


def test_what_was_not_asked_for_the_longest_leaves_first():
    reuse = Reuse(bytes=10)
    keep(reuse, "a", 4)
    keep(reuse, "b", 4)
    reuse.get(FEATURES, "a")
    keep(reuse, "c", 6)
    assert [reuse.get(FEATURES, key) is None for key in "abc"] == [False, True, False]
    statistics = reuse.statistics()
    assert (statistics["bytes"], statistics["evictions"], statistics["entries"]) == (10, 1, 2)
    assert statistics[FEATURES] == {"hits": 3, "misses": 1}


def test_the_limit_holds_whatever_is_put_in():
    reuse = Reuse(bytes=100)
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        size = int(torch.randint(0, 60, (1,), generator=generator))
        keep(reuse, number % 17, size)
        assert reuse.statistics()["bytes"] <= 100
    assert reuse.statistics()["bytes"] == sum(entry.size for entry in reuse._entries.values())


def test_what_is_larger_than_the_limit_is_not_kept_and_nothing_leaves_for_it():
    reuse = Reuse(bytes=10)
    keep(reuse, "a", 4)
    assert not keep(reuse, "b", 11)
    assert reuse.get(FEATURES, "a") is not None
    assert reuse.get(FEATURES, "b") is None


def test_the_same_key_is_counted_once_and_kinds_are_apart():
    reuse = Reuse(bytes=10)
    keep(reuse, "a", 4)
    keep(reuse, "a", 6)
    assert reuse.statistics()["bytes"] == 6
    assert reuse.get(PREFIX, "a") is None


def test_clear_forgets_everything():
    reuse = Reuse(bytes=10)
    keep(reuse, "a", 4)
    reuse.clear()
    assert reuse.get(FEATURES, "a") is None
    assert reuse.statistics()["bytes"] == 0


def test_a_negative_limit_is_refused():
    with pytest.raises(ConfigurationError, match="bytes=-1"):
        Reuse(bytes=-1)


class TestDigest:
    def test_says_the_same_of_equal_values_wherever_they_are_stored(self):
        pixels = torch.randn(2, 3, 4, 4)
        assert digest(pixels[1]) == digest(pixels[1].clone())
        assert digest(pixels.transpose(2, 3)) == digest(pixels.transpose(2, 3).contiguous())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
    def test_one_pixel_makes_another_image(self, dtype):
        pixels = torch.randint(0, 255, (3, 8, 8)).to(dtype)
        other = pixels.clone()
        other[2, 7, 7] += 1
        assert digest(pixels) != digest(other)

    def test_shape_and_dtype_count(self):
        pixels = torch.zeros(3, 4, 6)
        assert len({digest(pixels), digest(pixels.transpose(1, 2)), digest(pixels.double()), digest(pixels, 1)}) == 4

    def test_parts_cannot_be_mistaken_for_each_other(self):
        assert digest("ab", "c") != digest("a", "bc")

    def test_tiles_of_zeros_at_the_end_are_filler(self):
        tiles = torch.ones(1, 3, 3, 2, 2)
        padded = torch.cat([tiles, torch.zeros(1, 2, 3, 2, 2)], dim=1)
        assert digest(without_filler(padded)) == digest(tiles)
