"""Video files: real ones of several kinds are decoded, damaged ones are one sentence."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import llava
from llava.errors import BadInput, LlavaError, MissingData
from llava.model.video import evenly, open_video

av = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")


def write_video(path, n_frames=20, size=(64, 48), codec="mpeg4", kind="yuv420p", **options):
    """Write a film whose frame i has the brightness 10 i."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, kind
        for number in range(n_frames):
            picture = np.full((size[1], size[0], 3), number * 10 % 250, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def eight(n_frames, fps):
    return evenly(n_frames, 8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("film.mp4", {}),
        ("film.mkv", {}),
        ("film.avi", {}),
        ("film.webm", {"codec": "libvpx"}),
        ("film.gif", {"codec": "gif", "kind": "rgb8"}),
    ],
)
def test_kinds_of_files(tmp_path, name, options):
    video = open_video(write_video(tmp_path / name, **options), eight)
    assert (video.n_frames, video.fps, video.frames[0].size) == (20, 10.0, (64, 48))
    assert video.indices == [0, 2, 5, 8, 10, 13, 16, 19]
    brightness = [np.asarray(frame).mean() for frame in video.frames]
    assert np.abs(np.array(brightness) - 10 * np.array(video.indices)).max() < 4
    assert video.sampled_fps == pytest.approx(4)


def test_short_films_repeat_frames(tmp_path):
    video = open_video(write_video(tmp_path / "film.mp4", n_frames=3), eight)
    assert video.indices == [0, 0, 0, 0, 1, 1, 1, 2] and len(video.frames) == 8


def test_frames_instead_of_a_file():
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), dtype=np.uint8)
    for given in (frames, [Image.fromarray(frame) for frame in frames]):
        video = open_video(given, lambda n_frames, fps: [0, n_frames - 1])
        assert video.indices == [0, 4] and video.frames[1].size == (10, 8)
        assert np.array_equal(np.asarray(video.frames[1]), frames[4])
        assert open_video(video, eight) is video


class TestBadFiles:
    def damaged(self, tmp_path):
        half = {
            "cut.mp4": write_video(tmp_path / "a.mp4"),
            "cut_in_the_data.mp4": write_video(tmp_path / "b.mp4", n_frames=80, movflags="faststart"),
            "cut.webm": write_video(tmp_path / "c.webm", codec="libvpx"),
        }
        for name, whole in half.items():
            data = whole.read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
        (tmp_path / "empty.mp4").write_bytes(b"")
        (tmp_path / "text.mp4").write_text("hello")
        (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n")
        (tmp_path / "junk.avi").write_bytes(np.random.default_rng(0).bytes(4000))
        write_sound(tmp_path / "sound.mp4")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("cut.mp4", "damaged or cut short"),
            ("cut_in_the_data.mp4", "announces 80 frames, but only"),
            ("cut.webm", "announces 2.0 s, but ends after"),
            ("empty.mp4", "damaged or cut short"),
            ("text.mp4", "no video of a known kind"),
            ("list.m3u8", "no video of a known kind"),
            ("junk.avi", "no video of a known kind"),
            ("sound.mp4", "has no video in it"),
        ],
    )
    def test_damage_is_one_sentence(self, tmp_path, name, words):
        self.damaged(tmp_path)
        with pytest.raises(BadInput, match=words) as caught:
            open_video(tmp_path / name, eight)
        assert name in str(caught.value) and "\n" not in str(caught.value)

    def test_absent_files_folders_and_links(self, tmp_path):
        with pytest.raises(MissingData, match=r"No video at .*none\.mp4"):
            open_video(tmp_path / "none.mp4", eight)
        with pytest.raises(BadInput, match="not a file"):
            open_video(tmp_path, eight)
        with pytest.raises(BadInput, match="save the video"):
            open_video("https://example.org/a.mp4", eight)

    @pytest.mark.parametrize("given", [7, [], np.zeros((3, 4, 5)), np.zeros((0, 4, 5, 3), np.uint8)])
    def test_what_is_no_film(self, given):
        with pytest.raises(BadInput, match="cannot be made from"):
            open_video(given, eight)

    def test_frames_of_different_sizes(self):
        with pytest.raises(BadInput, match="different sizes"):
            open_video([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))], eight)

    def test_without_pyav(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "av", None)
        (tmp_path / "a.mp4").write_bytes(b"x")
        with pytest.raises(LlavaError, match="pip install av"):
            open_video(tmp_path / "a.mp4", eight)


LEAVE_EARLY = """
import sys
import av
from PIL import Image
from llava.model import video

av.logging.set_level(av.logging.PANIC)  # as another part of a program may: decoder threads need Python's lock for that
picture = Image.new("RGB", (4, 4))
video._upright = lambda frame: picture  # in no time, so that the decoder is still at work when the film is closed
for _ in range(200):
    assert video.open_video(sys.argv[1], lambda n_frames, fps: [0, 3]).n_frames == 16
"""


def test_closing_a_film_early_never_waits_for_the_decoder():
    """PyAV frees a decoder while it holds Python's lock, for which the decoder's threads may wait."""
    film = Path(llava.__file__).parent / "serve" / "web" / "examples" / "clip.mp4"
    subprocess.run([sys.executable, "-c", LEAVE_EARLY, str(film)], timeout=120, check=True)
