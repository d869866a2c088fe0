"""Position bias: shares by hand, and the command's verdict."""

import numpy as np
import pytest

from llava.analysis import position


def test_shares_by_hand():
    assert position.shares(np.array([0, 1, 5]), 6, 3).tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert position.shares(np.arange(10), 10, 5).tolist() == pytest.approx([0.2] * 5)
    assert position.positions(np.array([0, 3]), 4).tolist() == pytest.approx([0.125, 0.875])


def test_bias_of_two_images_by_hand():
    found = position.bias([(np.array([4, 5]), 6), (np.array([0, 5]), 6)], bins=6)
    assert found.thirds == pytest.approx((0.25, 0, 0.75))
    assert found.spread == pytest.approx(0.25)  # of 1 and 0.5
    assert found.margin == pytest.approx(1.96 * (0.125**0.5) / 2**0.5)
    assert found.mean_position == pytest.approx((5 / 6 + 0.5) / 2)
    assert found.histogram == pytest.approx((0.25, 0, 0, 0, 0.25, 0.5))


def test_everything_kept_has_no_preference_and_the_end_alone_has():
    whole = position.bias([(np.arange(9), 9)] * 3)
    assert whole.thirds == pytest.approx((1 / 3,) * 3) and "no preference" in whole.verdict("all")
    assert "favours the last third" in position.bias([(np.array([7, 8]), 9)] * 3).verdict("end")
    assert "avoids" in position.bias([(np.array([0, 1]), 9)] * 3).verdict("start")


def test_frequencies_are_relative_to_their_mean():
    counted = position.frequencies([(np.array([0, 1]), 4), (np.array([0, 2]), 4)], (2, 2))
    assert counted.tolist() == [[2, 1], [1, 0]]


def test_the_command(analyse, tmp_path):
    code, found, _, _ = analyse("position", "--methods", "dart,random", "--keep", "12,6", "--limit", 3)
    assert code == 0 and found["grid"] == [6, 6] and len(found["rows"]) == 4
    assert [row[:2] for row in found["rows"]] == [["dart", 12], ["dart", 6], ["random", 12], ["random", 6]]
    for row in found["rows"]:
        assert sum(row[3:6]) == pytest.approx(1, abs=1e-5)
    assert len(found["histogram"]["header"]) == 2 + 6
    assert (tmp_path / "out" / "position.md").is_file() and (tmp_path / "out" / "position_histogram.csv").is_file()


def test_a_method_whose_tokens_have_no_place_is_refused(analyse):
    code, _, _, told = analyse("position", "--methods", "smaller_image", "--limit", 1, "--keep", 9)
    assert code == 2 and "smaller_image 9 was left out" in told and "There is no method" in told
