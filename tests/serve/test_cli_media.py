"""The chat with models that take images of any size and videos: files on the command line, commands, mistakes."""

import io
import sys

import pytest
from PIL import Image

from llava.serve import cli
from tests.model import media_reference as media
from tests.model.test_video import write_video

pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
PRUNE = ["--keep", "0.5", "--set", "pivots_visual=1", "--set", "pivots_text=1"]
SHORT = ["--max-new-tokens", "3", "--device", "cpu"]
FILM_TOKENS = {"qwen2_vl": 2 * 144, "video_llava": 40}  # two time steps of at least 128 tokens: 12 x 12
IMAGE_TOKENS = {"qwen2_vl": 12, "video_llava": 4}


@pytest.fixture(scope="module", params=["qwen2_vl", "video_llava"])
def folder(request, tmp_path_factory):
    return media.write(tmp_path_factory.mktemp("chat") / request.param, request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    media.picture(112, 84).save(folder / "image.png")
    write_video(folder / "film.mp4", size=(64, 64))
    (folder / "bad.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture
def talk(folder, monkeypatch, capsys):
    def run(*words, lines=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = cli.main(["--model-path", str(folder), *SHORT, *map(str, words)])
        return (code, *capsys.readouterr())

    return run


def test_image_and_video_files(talk, folder, files):
    image, film = IMAGE_TOKENS[folder.name], FILM_TOKENS[folder.name]
    words = ("--image-file", files / "image.png", "--video-file", files / "film.mp4", "-p", "What?")
    code, out, err = talk(*words, *PRUNE)
    assert code == 0 and out.strip(), err
    kept = sum(1 + 2 * int(n * 0.5 / 2) for n in (image, film))
    assert f"visual tokens {image + film} -> {kept} after layer 2" in err


def test_a_video_in_a_later_turn(talk, files):
    film = files / "film.mp4"
    code, out, err = talk("--debug", *PRUNE, lines=f"Hello?\n/video {film}\nWhat?\n/video {files / 'bad.mp4'}\nAnd?\n")
    assert code == 0, err
    assert "no image in the prompt" in err and err.count("<|video_pad|>") + err.count("<video>\\n") == 2
    assert "bad.mp4 is no video of a known kind" in err and "Traceback" not in err


def test_absent_and_damaged_videos_end_the_command(talk, files):
    assert talk("--video-file", files / "none.mp4", "-p", "x")[0] == 2
    code, _, err = talk("--video-file", files / "bad.mp4", "-p", "x")
    assert code == 2 and len(err.strip().splitlines()) == 1


def test_limits_of_pixels(talk, folder, files):
    Image.new("RGB", (560, 560)).save(files / "large.png")
    code, _, err = talk("--image-file", files / "large.png", "--max-pixels", 12544, "-p", "x", "--method", "none")
    if folder.name == "qwen2_vl":
        assert code == 0 and "visual tokens 16 -> 16" in err
    else:
        assert code == 2 and "max_pixels=12544 cannot be used with video_llava" in err
