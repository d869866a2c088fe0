"""Scenes: what is drawn is what the ground truth says."""

import numpy as np
import pytest

from llava.train.examples import Difficulty, names_with_count, sample_example
from llava.train.scenes import CHARACTERS, COLOR_NAMES, COLORS, SHAPES, Window, draw_scene, patch_labels, sample_scene

CANVAS, PATCH = 336, 14


def scene_of(names, side=24, row=0, column=0, seed=0, **kwargs):
    window = Window(row, column, side)
    return sample_scene(
        np.random.default_rng(seed), canvas=CANVAS, patch=PATCH, window=window, names=names, radius=(20, 30), **kwargs
    )


@pytest.mark.parametrize("color", COLOR_NAMES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s != "ring"])
def test_centre_has_the_colour_it_is_said_to_have(color, shape):
    scene = scene_of([(color, shape)])
    pixels = np.asarray(draw_scene(scene)[0]).astype(int)
    thing = scene.things[0]
    seen = pixels[int(thing.y), int(thing.x)]
    distances = {name: np.abs(seen - rgb).sum() for name, rgb in COLORS.items()}
    assert min(distances, key=distances.get) == color


def test_things_and_sign_stay_inside_the_window_and_apart():
    for seed in range(40):
        scene = scene_of([("red", "circle")] * 4, side=12, row=5, column=9, seed=seed, sign_text="K7")
        left, top, right, bottom = scene.region
        boxes = [(t.x - t.radius, t.y - t.radius, t.x + t.radius, t.y + t.radius) for t in scene.things]
        boxes += [scene.sign.box] if scene.sign else []
        for box in boxes:
            assert left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_patch_labels_name_the_thing_at_its_centre():
    for seed in range(20):
        scene = scene_of([("green", "square"), ("blue", "star")], seed=seed)
        labels = patch_labels(scene, draw_scene(scene)[1])
        for thing in scene.things:
            patch = int(thing.y // PATCH) * 24 + int(thing.x // PATCH)
            assert labels["thing"][patch] == 1 + COLOR_NAMES.index(thing.color) * len(SHAPES) + SHAPES.index(
                thing.shape
            )
            assert labels["center"][patch] == 1
        assert labels["center"].sum() == len(scene.things)


def test_patch_labels_spell_the_sign_from_left_to_right():
    scene = scene_of([], sign_text="H4X")
    labels = patch_labels(scene, draw_scene(scene)[1])
    spelled = {}
    for _column, (character, place) in enumerate(
        zip(labels["character"].tolist(), labels["place"].tolist(), strict=False)
    ):
        if character > 0:
            spelled[place] = CHARACTERS[character - 1]
    assert "".join(spelled[k] for k in sorted(spelled)) == "H4X"


@pytest.mark.parametrize("target", ["red", "star"])
def test_names_with_count_have_exactly_that_many(target):
    rng = np.random.default_rng(0)
    for count in range(6):
        names = names_with_count(rng, target, count, 7)
        assert sum(target in name for name in names) == count and len(names) == 7


def test_the_same_seed_draws_the_same_picture():
    level = Difficulty(side=24, things=5)
    first, second = (sample_example(np.random.default_rng(3), level, CANVAS, PATCH) for _ in range(2))
    assert np.array_equal(np.asarray(draw_scene(first[0])[0]), np.asarray(draw_scene(second[0])[0]))
    assert first[1] == second[1]
