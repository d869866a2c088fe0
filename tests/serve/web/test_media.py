"""Videos in the demo without a page: what is refused, where frames and tokens stand, the chat's own answer."""

import shlex

import numpy as np
import pytest
from PIL import Image

from llava.errors import BadInput, LlavaError, MissingData
from llava.report.overlay_boards import Board
from llava.serve import cli
from llava.serve.web import cards
from llava.serve.web.demo import DONE, Demo
from llava.serve.web.media import IMAGE, VIDEO, Medium, frame_boards
from llava.serve.web.picture import caption, drawing, fate
from llava.serve.web.settings import Choice, Limits, Setting, command_line
from tests.model import media_reference
from tests.model.test_video import write_sound, write_video

pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
DART = Choice("dart", "2", "pivots_visual=1 pivots_text=1 layer=1")
LIMITS = Limits(new_tokens=3, video_bytes=50_000, video_pixels=100 * 100, video_seconds=3, video_frames=25)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """20 frames at 10 per second; frame i has the brightness 10 i."""
    return write_video(tmp_path_factory.mktemp("film") / "my film.mp4", size=(64, 64))


def test_a_video_is_answered_frame_by_frame(demo, folder, film, capsys):
    talk = demo.begin(Setting("", (DART,)), demo.open(VIDEO, film, str(film)))
    list(demo.ask(talk, "Is it red?"))
    assert [column.turns[0].status for column in talk.columns] == [DONE, DONE]
    assert [board.name for board in talk.boards] == [
        "frame 1, 0.0 s",
        "frame 2, 0.6 s",
        "frame 3, 1.2 s",
        "frame 4, 1.9 s",
    ]
    brightness = [board.pixels.mean() for board in talk.boards]
    assert np.abs(np.array(brightness) - [0, 60, 120, 190]).max() < 12  # frames 0, 6, 12, 19
    report = talk.columns[1].turns[0].report
    kept = set(report.indices[0][0].tolist())
    html = drawing(talk.boards, fate(report))
    for token, figure in enumerate(html.split("<figure>")[1:]):  # one token for each frame
        assert f'<span class="own">{int(token in kept)}</span> of 1' in figure
        assert f"frame {token + 1}" in figure and "row 1, column 1 · pivot score" in figure
    assert 'class="picture many"' in html and f"{len(kept)}</b> of 4 tokens" in caption(talk.boards, fate(report))
    column = talk.columns[1]
    line = command_line(column.choice, talk.medium.words, talk.questions, ["--model-path", str(folder)])
    assert "--video-file" in line and line in cards.reproduce(talk, ["--model-path", str(folder)]).replace(
        "&#x27;", "'"
    )
    assert cli.main([*shlex.split(line)[3:], "--max-new-tokens", "3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == column.turns[0].text
    assert "leaves out your video" in cards.reproduce(talk, [])


def test_a_further_question_is_about_the_same_video(demo, film, tmp_path):
    talk = demo.begin(Setting("", (DART,)), demo.open(VIDEO, film))
    for question in ("Is it red?", "And blue?"):
        list(demo.ask(talk, question))
    conversation = talk.columns[1].conversation
    assert len(conversation.videos) == 1 and len(conversation.turns) == 2 and talk.medium.name == "my film.mp4"
    assert talk.goes_on((DART,), VIDEO, str(film)) and not talk.goes_on((DART,), VIDEO, str(tmp_path / "my film.mp4"))


def test_methods_that_shrink_the_picture_shrink_all_frames_together(demo, film):
    talk = demo.begin(Setting("", (Choice("smaller_image", "1"),)), demo.open(VIDEO, film))
    list(demo.ask(talk, "Is it red?"))
    column = talk.columns[1]
    html = drawing(talk.whole, fate(column.turns[0].report), column.method.resized)
    assert html.count("<figure>") == 1 and 'width="1" height="1"' in html and "<rect" not in html


def test_what_is_refused(demo, tmp_path, monkeypatch):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    good = write_video(tmp_path / "good.mp4")
    for path, words in (
        (None, "There is no video: upload one"),
        (file("words.mp4", b"no film at all"), "^words.mp4 is no video of a known kind"),
        (file("page.html", b"<html><script>alert(1)</script></html>"), "^page.html is no video"),
        (file("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"), "^list.m3u8 is no video"),
        (file("heavy.mp4", b"x" * (LIMITS.video_bytes + 2**20)), "1.0 MB: 0 MB are allowed"),
        (file("cut.mp4", good.read_bytes()[:1500]), "cut short"),
        (write_sound(tmp_path / "sound.mp4"), "no video in it"),
        (write_video(tmp_path / "wide.mp4", 3, size=(160, 90)), "160 x 90 pixels: 0.0 million are allowed"),
        (write_video(tmp_path / "long.mp4", 40), "lasts 4 s: 3 s are allowed"),
        (write_video(tmp_path / "many.mp4", 29), "has 29 frames: 25 are allowed"),
    ):
        with pytest.raises((BadInput, MissingData), match=words) as caught:
            demo.open(VIDEO, path)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(BadInput, match="not an image"):
        demo.open(IMAGE, good)

    def absent():
        raise LlavaError("Videos need PyAV: type `pip install av`.")

    monkeypatch.setattr("llava.model.video._pyav", absent)
    with pytest.raises(LlavaError, match="need PyAV"):
        demo.open(VIDEO, good)


def boards_of(sizes):
    return [Board(np.zeros((*size, 3), np.uint8), np.arange(size[0] * size[1]).reshape(size)) for size in sizes]


def test_grids_are_cut_where_no_token_lies_across_frames():
    medium = Medium("a.mp4", Image.new("RGB", (4, 4)), "a.mp4", (0.0, 1.0, 2.0, 3.0))
    cut = frame_boards(boards_of([(4, 6)]), medium)
    assert [board.tokens.tolist() for board in cut] == [
        [[0, 1, 2], [6, 7, 8]],
        [[3, 4, 5], [9, 10, 11]],
        [[12, 13, 14], [18, 19, 20]],
        [[15, 16, 17], [21, 22, 23]],
    ]
    assert cut[3].pixels.shape == (2, 3, 3) and cut[3].name == "frame 4, 3.0 s"
    (whole,) = frame_boards(boards_of([(3, 4)]), medium)
    assert whole.tokens.shape == (3, 4) and whole.name == "frames 1-4"
    (still,) = frame_boards(boards_of([(4, 4)]), Medium("a.png", Image.new("RGB", (4, 4)), "a.png"))
    assert still.tokens.shape == (4, 4) and still.name == ""


@pytest.mark.parametrize("kind", ["video_llava", "qwen2_vl"])
def test_models_that_take_frames(kind, tmp_path, film):
    model, processor = media_reference.load(media_reference.write(tmp_path / kind, kind))
    demo = Demo(model, processor, Limits(new_tokens=2))
    assert demo.kinds == (IMAGE, VIDEO)
    talk = demo.begin(
        Setting("", (Choice("dart", "0.5", "pivots_visual=1 pivots_text=1 layer=1"),)), demo.open(VIDEO, film)
    )
    list(demo.ask(talk, "Is it red?"))
    turn = talk.columns[1].turns[0]
    assert turn.status == DONE, turn.problem
    assert len(talk.boards) > 1 and all(", " in board.name and board.name.endswith(" s") for board in talk.boards)
    known = fate(turn.report)
    html, text = drawing(talk.boards, known), caption(talk.boards, known)
    cells, kept = html.count("<rect"), html.count("<rect") - html.count('class="gone"')
    loose = text.partition('data-loose="')[2].partition('"')[0].split()
    assert cells + len(loose) == len(known.gone) and bool(loose) == (kind == "video_llava")  # class tokens
    assert kept + loose.count("-") == sum(layer is None for layer in known.gone)


def test_models_without_videos_offer_images_only(demo, monkeypatch):
    from llava.model.processing.base import Processor

    assert demo.kinds == (IMAGE, VIDEO)
    monkeypatch.setattr(type(demo.processor), "open_video", Processor.open_video)
    assert demo.kinds == (IMAGE,)
