"""The page of a tiny, slow model in a real headless Chromium: Stop, leaving, a full queue, videos and mistakes."""

import time

import pytest
from PIL import Image

import llava
from llava.serve.web.demo import STOPPED, Demo
from llava.serve.web.settings import Choice, Limits, Setting
from tests.model.llava_folder import write_checkpoint
from tests.serve.web import browser as browsers

pytestmark = pytest.mark.skipif(bool(browsers.missing()), reason=browsers.missing())
DART = Choice("dart", "2", "pivots_visual=1 pivots_text=1 layer=1")
LIMITS = Limits(new_tokens=400, waiting=1, image_bytes=60_000, video_bytes=60_000, video_seconds=3)
PAUSE = 0.05  # seconds for each token, while the model is slow: 20 s for an answer
ANSWERS = "return [...document.querySelectorAll('.card .a')].map(a => a.innerText)"
BEGUN = """
const first = document.querySelector('.card .a');
return first && !first.querySelector('.waiting') ? first.innerText.length : 0
"""


class SlowModel:
    """A tiny model, how often it was run, and a switch that makes its answers long."""

    def __init__(self, folder):
        self.model, self.processor = llava.load(write_checkpoint(folder / "llava"), device="cpu")
        self.runs, self.slow = 0, False
        self.model.register_forward_pre_hook(self._count)
        self.generate = self.model.generate
        self.model.generate = self._generate

    def _count(self, *_):
        self.runs += 1
        time.sleep(PAUSE if self.slow else 0)

    def _generate(self, **given):
        limits = {"min_new_tokens": LIMITS.new_tokens} if self.slow else {"max_new_tokens": 3}
        return self.generate(**{**given, **limits})

    def rests(self, seconds):
        """Whether nothing is computed for so long."""
        before = self.runs
        time.sleep(seconds)
        return self.runs == before


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return SlowModel(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def server(model):
    from llava.serve.web.server import Server

    with Server(Demo(model.model, model.processor, LIMITS), Setting("Is it red?", (DART,))) as running:
        yield running


@pytest.fixture
def slow(model):
    model.slow = True
    yield
    model.slow = False


def streams(page):
    """Wait until the first column of a page just opened has begun its answer: it says that it waits before that."""
    page.wait(lambda: page.js(BEGUN) > 2)


def test_stop_ends_the_answer_here_and_on_the_server(page, model, slow):
    page.press("#ask")
    streams(page)
    begun = model.runs
    page.press("#stop")
    page.wait(lambda: [answer.endswith(STOPPED) for answer in page.js(ANSWERS)] == [True, True], seconds=10)
    assert len(page.js(ANSWERS)[0]) > len(STOPPED)  # what had come stays to be read
    page.wait(lambda: model.rests(6 * PAUSE), seconds=5)
    assert begun > 0 and model.runs < LIMITS.new_tokens / 2  # far from the end, and the second column never began
    model.slow = False
    page.ask()  # the page works on
    (first, second) = page.cards()
    assert [len(card["answers"]) for card in (first, second)] == [1, 1] and not first["problem"] + second["problem"]
    assert first["caption"].startswith("4 of 4 tokens") and "first token" in second["numbers"]
    assert page.errors() == []


def test_start_anew_while_an_answer_streams(page, server, model, slow):
    page.open(server.url)  # without the answers of another test
    page.press("#ask")
    streams(page)
    page.press("#new")
    page.wait(lambda: not page.cards() and page.js("return Boolean(document.querySelector('#empty')?.offsetParent)"))
    page.wait(lambda: model.rests(6 * PAUSE), seconds=5)


def test_waiting_and_a_full_queue_are_told_and_leaving_ends_the_answer(page, server, model, slow):
    windows: list = []
    other = server.url.replace("127.0.0.1", "localhost")  # browsers open six connections to one name, two for a page
    for url in (server.url, server.url, other):  # one is served, one waits, one is too many
        page.driver.switch_to.new_window("tab")
        windows.append(page.driver.current_window_handle)
        page.size(*browsers.DESKTOP)
        page.open(url)
        page.press("#ask")
        if len(windows) == 1:
            streams(page)
        elif len(windows) == 2:
            page.wait(lambda: "queue" in page.text("#place"))
    page.wait(lambda: "busy" in page.text(".toast-wrap").lower() or "queue" in page.text(".toast-wrap").lower())
    page.press("#examples .gallery-item:nth-child(2)")  # what computes nothing does not wait
    page.wait(lambda: "number" in page.js("return document.querySelector('#question textarea').value"), seconds=10)
    page.driver.close()
    page.driver.switch_to.window(windows[0])
    before = model.runs
    page.driver.close()  # the first visitor leaves: the second one's turn begins long before the first answer's end
    page.driver.switch_to.window(windows[1])
    streams(page)
    assert model.runs - before < LIMITS.new_tokens / 2
    page.press("#stop")
    page.wait(lambda: model.rests(6 * PAUSE), seconds=5)
    page.driver.close()
    page.driver.switch_to.window(page.driver.window_handles[0])


def test_an_uploaded_video(page, tmp_path):
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    from tests.model.test_video import write_video

    film = write_video(tmp_path / "my film's.webm", size=(64, 64), codec="libvpx")
    long = write_video(tmp_path / "long.webm", 40, codec="libvpx")
    (tmp_path / "words.mp4").write_bytes(b"no film")
    Image.effect_noise((600, 600), 99).save(tmp_path / "heavy.mp4", format="png")
    page.press("#media button[role=tab]:nth-of-type(2)")
    page.wait(lambda: page.all("#video input[type=file]"))
    page.ask()
    assert "There is no video" in page.text("#message")
    for file, words in ((long, "lasts 4 s: 3 s are allowed"), (tmp_path / "words.mp4", "words.mp4 is no video")):
        page.upload(file, "video")
        page.wait(lambda: page.all("#video button[aria-label='Clear']"))
        page.ask()
        assert words in page.text("#message") and str(tmp_path) not in page.text("#message")
    page.upload(tmp_path / "heavy.mp4", "video")  # refused by the server while it is sent
    page.wait(lambda: "size" in (page.text(".toast-wrap") + page.text("#video .error")).lower())
    page.open(page.driver.current_url)
    page.press("#media button[role=tab]:nth-of-type(2)")
    page.upload(film, "video")
    page.wait(lambda: page.all("#video video"))
    page.ask()
    assert page.text("#message") == ""
    frames = page.js(
        "return [...document.querySelectorAll('.card')[1].querySelectorAll('figcaption')].map(f => f.innerText)"
    )
    assert [words.split("\n")[0] for words in frames] == [
        f"frame {n}" for n in ("1, 0.0 s", "2, 0.6 s", "3, 1.2 s", "4, 1.9 s")
    ]
    kept = [int(words.split("\n")[1].split(" of ")[0]) for words in frames]
    card = page.cards()[1]
    assert (
        card["cells"] == 4 and sum(kept) == 4 - card["gone"] and card["caption"].startswith(f"{sum(kept)} of 4 tokens")
    )
    slider = (
        "const s = document.querySelector('#layer'); s.value = -1; s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.js(slider)
    assert page.js("return [...document.querySelectorAll('.card .own')].map(o => o.innerText)") == ["1"] * 8
    assert "--video-file" in page.js("return document.querySelector('.line code').textContent")
    assert "leaves out your video" in page.js("return document.querySelector('.reproduce').textContent")
    page.size(*browsers.PHONE)
    assert page.width() <= browsers.PHONE[0] and page.strangers() == []
