"""Clips: what is said to happen is seen in the frames."""

import re

import numpy as np
import pytest

from llava.train.scenes import COLORS
from llava.train.videos import ACTIONS, FRAMES, SIDE, practice, sample_clip


def thing_of(clip, frame):
    """The acting thing in a frame, or None while it is not there."""
    return next((t for t in clip.scenes[frame].things if t.shape == clip.thing.shape), None)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_answer_follows_from_first_and_last_frame(action, seed):
    clip = sample_clip(np.random.default_rng(seed), action)
    first, last = thing_of(clip, 0), thing_of(clip, FRAMES - 1)
    assert len(clip.scenes) == FRAMES
    if action == "move":
        assert clip.answer == ("right" if last.x > first.x else "left") and abs(last.x - first.x) > SIDE / 3
    elif action == "appear":
        assert first is None and clip.answer in (last.color, last.shape)
    else:
        assert first.color != last.color == clip.answer


def test_only_the_acting_thing_changes_in_the_picture():
    clip = sample_clip(np.random.default_rng(3), "change")
    first, last = (np.asarray(clip.frames()[k]).astype(int) for k in (0, -1))
    changed = np.argwhere(np.abs(first - last).sum(-1) > 30)
    distance = np.hypot(changed[:, 1] - clip.thing.x, changed[:, 0] - clip.thing.y)
    assert len(changed) and distance.max() < 1.5 * clip.thing.radius
    y, x = changed[np.argmin(distance)]
    rgb = last[y, x]
    nearest = min(COLORS, key=lambda name: np.abs(rgb - COLORS[name]).sum())
    assert nearest == clip.answer


def test_practice_asks_what_the_frames_show():
    rng = np.random.default_rng(5)
    for number in range(30):
        clip = sample_clip(rng, ACTIONS[number % 3])
        first, last = ({(t.color, t.shape): t for t in clip.scenes[k].things} for k in (0, -1))
        for q in practice(clip, rng):
            if m := re.match(r"does the (\w+) (\w+) move to the (left|right)\?", q.text):
                moved = last[m[1], m[2]].x - first[m[1], m[2]].x
                assert (q.answer == "Yes") == ((moved < 0) == (m[3] == "left"))
            elif m := re.match(r"does a (\w+) (\w+) appear\?", q.text):
                assert (q.answer == "Yes") == ((m[1], m[2]) in last.keys() - first.keys())
            elif m := re.match(r"what color does the (\w+) (?:have at first|change to)\?", q.text):
                assert (q.answer, m[1]) in (first if "at first" in q.text else last)
            elif q.text in ("what shape appears?", "what color is the object that appears?"):
                ((color, shape),) = last.keys() - first.keys()
                assert q.answer == (shape if "shape" in q.text else color)


def test_a_grid_shows_first_and_last_frame_in_its_corners():
    clip = sample_clip(np.random.default_rng(6), "appear")
    image, owner = clip.grid(336)
    assert image.size == (336, 336) and owner.shape == (336, 336)
    number = len(clip.scenes[-1].things)  # the acting thing is drawn last
    assert (owner[168:, 168:] == number).any() and not (owner[:168, :168] == number).any()
