"""Tokens on things: the truth of hand-made scenes, recall against chance, the command."""

import csv
import itertools
import statistics

import numpy as np
import pytest

from llava.analysis import recall, truth
from llava.report.overlay_boards import Board
from llava.train.scenes import Scene, Sign, Thing, Window, draw_scene, patch_labels


def example(things, sign=None, asked=0, side=6, patch=14):
    scene = Scene(side * patch, patch, Window(0, 0, side), list(things), sign)
    image, owner = draw_scene(scene)
    return truth.Example(scene, image, owner, "", asked)


def board(side, first=0):
    tokens = first + np.arange(side * side).reshape(side, side)
    return Board(np.zeros((side, side, 3), np.uint8), tokens)


def test_a_square_covers_the_cells_it_stands_on():
    # 0.8 * 0.92 of the radius on either side of the middle: 20.6 pixels, so 21.4 to 62.6 of 84
    found = truth.truth(example([Thing("square", "red", 42, 42, 28)]), [board(6)])
    inner = [row * 6 + column for row in range(1, 5) for column in range(1, 5)]
    assert set(found.things[0]) == set(inner) - {7, 10, 25, 28}  # a corner cell is covered by less than 35 %
    assert not len(found.sign) and found.letters == () and 0 in found.background and 14 not in found.background


def test_a_thing_too_small_for_any_cell_has_one():
    found = truth.truth(example([Thing("circle", "red", 20, 20, 3)]), [board(6)])
    assert found.things[0].tolist() == [7]


def test_letters_stand_where_their_boxes_are():
    sign = Sign("AB", (14, 28, 70, 56), ((16, 30, 40, 54), (44, 30, 68, 54)), 24, False)
    found = truth.truth(example([Thing("circle", "red", 42, 70, 8)], sign), [board(6)])
    # middles of the cells: 7, 21, 35, 49, 63, 77 pixels
    assert [own.tolist() for own in found.letters] == [[13, 14, 19, 20], [15, 16, 21, 22]]
    assert set(found.sign) == {13, 14, 15, 16, 19, 20, 21, 22}


def test_things_are_found_on_every_board_of_an_image():
    thing = Thing("square", "red", 42, 42, 28)
    found = truth.truth(example([thing]), [board(6), board(12, first=36)])
    alone = truth.truth(example([thing]), [board(12)])
    assert set(found.things[0]) == {8, 9, 13, 14, 15, 16, 19, 20, 21, 22, 26, 27} | {36 + n for n in alone.things[0]}


def test_scenes_are_held_out_repeatable_and_agree_with_the_dense_labels():
    few, more = truth.examples(2), truth.examples(3)
    assert [one.question for one in few] == [one.question for one in more[:2]]
    for one in more:
        side = one.scene.window.side
        assert one.scene.things[one.asked].name in one.question and one.image.size == (336, 336)
        found = truth.truth(one, [board(side)])
        labels = patch_labels(one.scene, one.owner)
        assert set(np.concatenate(found.things)) == set(np.flatnonzero(labels["thing"] > 0))
        assert set(found.background) <= set(np.flatnonzero(labels["thing"] == 0))


def test_chance_of_finding_is_that_of_all_subsets():
    every = [bool({0, 1} & set(kept)) for kept in itertools.combinations(range(6), 3)]
    assert recall.chance_found(2, 3, 6) == pytest.approx(statistics.mean(every))
    assert recall.chance_found(2, 5, 6) == 1 and recall.chance_found(1, 0, 6) == 0


def test_recall_by_hand():
    known = truth.Truth(
        (np.array([0, 1]), np.array([4])), 1, np.array([7, 8, 9]), (np.array([8]), np.array([], int)), np.array([2, 3])
    )
    found = recall.of_image(np.array([1, 8, 2]), 10, known)
    assert found["things found"] == pytest.approx((1 / 2, ((1 - 56 / 120) + 3 / 10) / 2))
    assert found["thing tokens"] == pytest.approx((1 / 3, 0.3))
    assert found["asked thing found"] == pytest.approx((0, 0.3)) and found["asked thing tokens"] == (0, 0.3)
    assert found["sign tokens"] == pytest.approx((1 / 3, 0.3)) and found["letters found"] == pytest.approx((1, 0.3))
    assert found["letter tokens"] == (1, 0.3) and found["background tokens"] == (0.5, 0.3)
    bare = recall.of_image(np.array([1]), 10, truth.Truth(known.things, 0, np.array([], int), (), known.background))
    assert "sign tokens" not in bare and "letters found" not in bare
    both = recall.over_images([found, bare])
    assert both["sign tokens"].images == 1 and both["thing tokens"].images == 2
    assert both["thing tokens"].value == pytest.approx(1 / 3) and both["thing tokens"].chance == pytest.approx(0.2)
    assert both["thing tokens"].ratio == pytest.approx(5 / 3) and both["thing tokens"].margin == 0


def test_keeping_everything_finds_everything(analyse, tmp_path):
    code, found, _, _ = analyse("objects", "--methods", "none,random", "--keep", "12", "--limit", 3)
    assert code == 0
    rows = {row[0]: dict(zip(found["header"], row, strict=True)) for row in found["rows"]}
    assert rows["none"]["things found"] == 1 == rows["none"]["thing tokens / chance"] and rows["none"]["kept"] == 36
    assert rows["random"]["kept"] == 12 and 0 < rows["random"]["things found"] <= 1
    with open(tmp_path / "out" / "objects_measures.csv", newline="") as file:
        long = list(csv.DictReader(file))
    chance = next(
        float(row["chance"]) for row in long if row["method"] == "random" and row["measure"] == "thing tokens"
    )
    assert chance == pytest.approx(12 / 36, abs=1e-5)
    assert 0 < found["shares"]["things"] < 1
