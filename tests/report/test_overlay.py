"""Kept-token pictures: where tokens stand in tiles and frames, how dropped ones fade, the command."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import llava
from llava.errors import BadInput
from llava.report import __main__ as command
from llava.report import overlay
from llava.report.overlay_boards import TILES, WHOLE, Board, alike, boards
from tests import families
from tests.model import llava_folder
from tests.model import media_reference as media

PLAIN = SimpleNamespace(image_mean=(0.0,) * 3, image_std=(1.0,) * 3)


def gradient(width, height):
    """Red grows to the right, green downwards: the colour of a pixel tells where it stands."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def places(pixels):
    """Mean (x, y) of the gradient over each quarter of a picture, row by row."""
    height, width = pixels.shape[:2]
    parts = [pixels[y : y + height // 2, x : x + width // 2] for y in (0, height // 2) for x in (0, width // 2)]
    return [(part[..., 0].mean() / 255, part[..., 1].mean() / 255) for part in parts]


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    folder = llava_folder.write_checkpoint(tmp_path_factory.mktemp("next") / "next", tiled=True)
    return folder, *llava.load(folder, device="cpu")


@pytest.fixture(scope="module", params=["video_llava", "qwen2_vl", "qwen3_vl"])
def moving(request, tmp_path_factory):
    folder = media.write(tmp_path_factory.mktemp("films") / request.param, request.param)
    return folder, *media.load(folder)


def test_every_token_of_a_tiled_image_stands_somewhere():
    tiny = families.TINY["llava_next"]
    model, (inputs, counts) = tiny.build(), tiny.batch()
    found = boards(model, PLAIN, inputs)
    shapes = {True: (8, 8), False: (4, 8)}  # pictures 0 to 3: 40 x 44 pixels, or 20 x 46
    for number, ((whole, tiles), n_visual) in enumerate(zip(found, sum(counts, []), strict=True)):
        rows, columns = shapes[number % 2 == 0]
        assert whole.name == WHOLE and whole.tokens.tolist() == np.arange(16).reshape(4, 4).tolist()
        assert tiles.name == TILES and tiles.tokens.shape == (rows, columns)
        expected = 16 + np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)
        assert tiles.tokens.tolist() == expected.tolist()  # official order: rows, each with a newline
        assert tiles.row_ends.tolist() == (expected[:, -1] + 1).tolist() and tiles.row_ends[-1] == n_visual - 1
        assert tiles.edges == ((4,) if rows == 8 else (), (4,))
    assert alike(found) is None


@pytest.mark.parametrize("size", [(90, 90), (100, 50), (40, 120)])
def test_tiles_are_put_together_as_the_image_without_its_border(tiled, size):
    _, model, processor = tiled
    image = gradient(*size)
    inputs = processor([processor.prompt("What?")], [[image]])
    ((whole, tiles),) = boards(model, processor, inputs)
    for board in (whole, tiles):
        assert np.allclose(places(board.pixels), [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], atol=0.12)
    assert not (tiles.tokens < 0).any()
    seen = tiles.pixels.shape[1] / tiles.pixels.shape[0]
    assert seen == pytest.approx(tiles.tokens.shape[1] / tiles.tokens.shape[0], rel=0.1)


def test_frames_stand_in_their_order(moving):
    _, model, processor = moving
    shades = [20, 60, 100, 140, 180, 220, 240, 250]
    film = np.stack([np.full((64, 64, 3), shade, np.uint8) for shade in shades])
    inputs = processor([processor.prompt("What?", n_images=0, n_videos=1)], videos=[[film]])
    (seen,) = boards(model, processor, inputs)
    shown = [float(board.pixels.mean()) for board in seen]
    assert shown == sorted(shown) and shown[0] == pytest.approx(20, abs=1.5)
    tokens = np.concatenate(
        [[*([board.class_token] if board.class_token >= 0 else []), *board.tokens.flat] for board in seen]
    )
    assert tokens.tolist() == list(range(int((inputs["input_ids"] == processor.placeholders[1]).sum())))
    assert (seen[0].class_token == 0) == (processor.family == "video_llava")
    pixels = overlay.composed(seen, range(len(tokens)))
    assert pixels.shape[1] > 1.5 * pixels.shape[0] and overlay.KEPT not in [tuple(pixels[-1, -1])]


def test_an_image_of_any_size_is_a_grid(moving):
    _, model, processor = moving
    inputs = processor([processor.prompt("What?")] * 2, [[gradient(112, 84)], [gradient(84, 84)]])
    found = boards(model, processor, inputs)
    for (board,) in found:
        assert np.allclose(places(board.pixels), [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], atol=0.15)
        assert board.tokens.tolist() == np.arange(board.tokens.size).reshape(board.tokens.shape).tolist()
    if processor.family == "video_llava":
        assert alike(found) == (2, 2)
    else:
        assert alike(found) is None and found[0][0].tokens.shape[1] > found[1][0].tokens.shape[1]


def test_dropped_cells_fade_and_markers_tell_of_newlines_and_class_tokens():
    pixels = np.full((8, 8, 3), 100, np.uint8)
    tiles = Board(pixels, np.array([[1, 2], [4, 5]]), row_ends=np.array([3, 6]))
    drawn = overlay.composed([tiles], [1, 6])
    assert (drawn[:4, :4] == 100).all() and (drawn[:4, 4:8] > 200).all() and (drawn[4:, :8] > 200).all()
    strip = drawn[:, 8:].reshape(8, -1, 3)
    assert (strip[1] == overlay.DROPPED).all(-1).any() and not (strip[1] == overlay.KEPT).all(-1).any()
    assert (strip[5] == overlay.KEPT).all(-1).any()
    frame = overlay.composed([Board(pixels, np.array([[1, 2], [3, 4]]), class_token=0)], [0])
    assert tuple(frame[0, 0]) == overlay.KEPT and len(frame) > 8
    assert len(overlay.legend_of([tiles])) == 1 and overlay.legend_of([Board(pixels, np.zeros((2, 2), int))]) == ()


def test_seams_between_tiles_are_lines():
    board = Board(np.zeros((16, 16, 3), np.uint8), np.arange(16).reshape(4, 4), TILES, ((2,), (2,)))
    drawn = overlay.composed([board], range(16))
    assert (drawn[8, 0] == overlay.EDGE).all() and (drawn[0, 8] == overlay.EDGE).all() and (drawn[4, 4] == 0).all()


def test_other_families_and_mixed_prompts_are_refused(moving):
    with pytest.raises(BadInput, match="gemma3 model stand is not known; it is for: llava, llava_next"):
        boards(families.TINY["gemma3"].build(), PLAIN, {})
    _, model, processor = moving
    inputs = processor([processor.prompt("What?", 1, 1)], [[gradient(84, 84)]], [[media.film()]])
    with pytest.raises(BadInput, match="for images or for videos"):
        boards(model, processor, inputs)
    with pytest.raises(BadInput, match="for images or for videos"):
        boards(model, processor, {"pixel_values": None})


def test_the_command_draws_tiles_by_criterion(tiled, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    gradient(80, 80).save(tmp_path / "image.png")
    words = ["overlay", str(tmp_path / "image.png"), "--model-path", str(tiled[0]), "--keep", "10", "--methods"]
    words += ["none,dart,smaller_image", "--criteria", "k_norm_max,random", "--max-new-tokens", "1"]
    assert command.main([*words, "--output", str(tmp_path / "kept.png")]) == 0
    assert Image.open(tmp_path / "kept.png").width > 400


def test_the_command_draws_a_video(moving, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    from tests.model.test_video import write_video

    film = write_video(tmp_path / "film.mp4", n_frames=8, size=(64, 64))
    words = ["overlay", str(film), "--model-path", str(moving[0]), "--methods", "dart,random", "--keep", "0.5"]
    assert command.main([*words, "--max-new-tokens", "1", "--output", str(tmp_path / "kept.svg")]) == 0
    assert "<svg" in (tmp_path / "kept.svg").read_text()[:400]


def test_panels_of_a_video_say_how_many_tokens_are_left(moving):
    _, model, processor = moving
    methods = {"random": llava.Random(keep=0.5)}
    (panel,) = overlay.panels(model, processor, None, "What?", methods, 1, video=media.film(8))
    total = int(panel.title.rpartition(" ")[2])
    assert panel.title == f"random: {total // 2} of {total}" and torch.is_tensor(panel.pixels) is False
