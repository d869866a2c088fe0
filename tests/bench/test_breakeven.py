"""Where a method begins to pay, on numbers small enough for a sheet of paper."""

import pytest

from llava.bench.breakeven import BreakEven, over_lengths, over_new_tokens


@pytest.mark.parametrize(
    ("unpruned", "pruned", "expected"),
    [
        ([1, 2, 6], [2, 3, 3], BreakEven("from", 125.0, (0, 200))),  # gains -1, -1, 3: zero a quarter of the way
        ([5, 2, 2], [1, 1, 3], BreakEven("up to", 150.0, (0, 200))),
        ([5, 5, 5], [1, 1, 1], BreakEven("always", None, (0, 200))),
        ([1, 1, 1], [1, 2, 2], BreakEven("never", None, (0, 200))),
        ([3, 1, 3], [2, 2, 2], BreakEven("from", 150.0, (0, 200))),  # noise: the last change counts
    ],
)
def test_the_length_is_interpolated(unpruned, pruned, expected):
    assert over_lengths([0, 100, 200], unpruned, pruned) == expected


@pytest.mark.parametrize(
    ("prefill", "token", "expected"),
    [
        ((10, 4), (1, 0.5), BreakEven("always")),
        ((4, 10), (1, 1), BreakEven("never")),
        ((4, 10), (3, 1), BreakEven("from", 4.0)),  # 4 + 3 * 3 = 13 = 10 + 3 * 1
        ((10, 4), (1, 3), BreakEven("up to", 4.0)),
    ],
)
def test_generated_tokens(prefill, token, expected):
    assert over_new_tokens(prefill, token) == expected


def test_words():
    assert BreakEven("from", 124.6).words("visual tokens") == "is faster from 125 visual tokens"
    assert BreakEven("never", None, (16, 49)).words("visual tokens") == "is never faster from 16 to 49 visual tokens"
