"""The demo in a real headless Chromium: load, upload, ask, compare, go on, share a link, mistakes, a phone."""

import pytest
from PIL import Image

import llava
from llava.serve.web.demo import Demo
from llava.serve.web.examples import EXAMPLES
from llava.serve.web.media import VIDEO
from llava.serve.web.settings import Choice, Limits, Setting
from tests.serve.web import browser as browsers

pytestmark = pytest.mark.skipif(bool(browsers.missing()), reason=browsers.missing())
DEFAULTS = Setting("Is there a red star in the image?", (Choice("dart", "64"), Choice("pyramiddrop", "128")))
LIMITS = Limits(image_bytes=200_000, image_pixels=1_000_000, video_bytes=200_000, new_tokens=6)


@pytest.fixture(scope="module")
def server():
    from llava.serve.web.server import Server

    demo = Demo(*llava.load(device="cpu"), LIMITS)
    with Server(demo, DEFAULTS, shared=["--max-new-tokens", "6"]) as running:
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files to upload: one that is fine, and three that are not."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = Image.new("RGB", (300, 200), "gray")
    scene.paste("red", (120, 60, 180, 120))
    scene.save(folder / "my cat's.png")
    Image.new("1", (1100, 1000)).save(folder / "large.png")
    (folder / "words.png").write_bytes(b"these are words")
    Image.effect_noise((600, 600), 99).save(folder / "heavy.png")
    return folder


@pytest.fixture(scope="module")
def n(server):
    """Visual tokens of an image."""
    vision = server.demo.model.config.vision_config
    return (vision.image_size // vision.patch_size) ** 2


def test_ask_and_compare(page, n):
    """The first question, on the example that is there at first."""
    assert "visual tokens" in page.text("h1") and page.width() <= browsers.DESKTOP[0]
    page.ask()
    unpruned, dart, pyramid = page.cards()
    assert (unpruned["name"], dart["name"], pyramid["name"]) == ("unpruned", "dart 64", "pyramiddrop 128")
    assert [card["cells"] for card in (unpruned, dart, pyramid)] == [n] * 3
    assert unpruned["gone"] == 0 and dart["gone"] == n - 68 and dart["caption"].startswith(f"68 of {n} tokens")
    assert "mean 128 per layer" in pyramid["caption"]
    assert all(len(card["answers"]) == 1 and card["answers"][0] for card in page.cards())
    assert "first token" in dart["numbers"] and "MB" in dart["numbers"] and "×" in dart["numbers"]
    title = page.js("return document.querySelectorAll('#cards .card')[1].querySelector('rect title').textContent")
    assert title.startswith("row 1, column 1 · pivot score ")
    assert page.strangers() == [] and page.errors() == []


def test_the_slider_goes_through_the_layers(page, n):
    def left_at(layer):
        page.js(
            "const s = document.querySelector('#layer'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))",
            layer,
        )
        return [n - card["gone"] for card in page.cards()]

    assert left_at(-1) == [n, n, n] and page.text("#layer-name") == "the vision tower"
    assert left_at(1) == [n, n, left_at(1)[2]] and left_at(2)[1] == 68
    depths = [left_at(layer)[2] for layer in range(-1, int(page.js("return document.querySelector('#layer').max")) + 1)]
    assert depths == sorted(depths, reverse=True) and len(set(depths)) == 4  # three cuts
    page.press("#shade")
    assert page.js("return document.querySelector('#cards rect[data-s]:not(.gone)').style.fill").startswith("rgb")
    page.press("#shade")


def test_pointing_at_a_patch(page):
    page.js(
        "document.querySelectorAll('#cards .card')[1].querySelectorAll('rect')[25]"
        ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    )
    note = page.js("return document.querySelectorAll('#cards .card')[1].querySelector('.token-note').innerText")
    assert note.startswith("row 2, column 2 · pivot score ")


def test_a_second_turn_goes_on(page):
    page.type("#question", "Is there a green star in the image?")
    page.ask()
    assert [len(card["answers"]) for card in page.cards()] == [2, 2, 2]
    lines = page.js("return [...document.querySelectorAll('.line code')].map(c => c.textContent)")
    assert len(lines) == 3 and all("Is there a red star" in line and "green star" in line for line in lines)


def test_mistakes_are_told_in_the_page(page):
    page.type("#question", "")
    page.ask()
    assert "question is empty" in page.text("#message")
    page.type("#question", "Is there a red star in the image?")
    page.type("#budget-1", "many")
    page.type("#budget-2", "0")
    page.ask()
    assert "'many' is not a number" in page.text("#message") and "keep 0" in page.text("#message")
    page.type("#budget-1", "128")
    page.type("#budget-2", "40")  # fewer than the first layer alone costs
    page.ask()
    assert page.text("#message") == ""
    _, dart, pyramid = page.cards()
    assert dart["answers"][0] and dart["name"] == "dart 128" and "cannot be reached" in pyramid["problem"]


def test_examples(page):
    page.press("#examples .gallery-item:nth-child(2)")
    wanted = list(EXAMPLES.values())[1]
    page.wait(lambda: page.js("return document.querySelector('#question textarea').value") == wanted.question)
    page.wait(lambda: wanted.file.name in (page.js("return document.querySelector('#image img')?.src") or ""))


def test_the_example_video(page, n):
    (name, film) = next((name, example) for name, example in EXAMPLES.items() if example.kind == VIDEO)
    page.press(f"#examples .gallery-item:nth-child({1 + list(EXAMPLES).index(name)})")
    page.wait(lambda: film.file.name in (page.js("return document.querySelector('#video video')?.src") or ""))
    page.ask()
    assert page.text("#message") == "" and page.cards()[0]["answers"]
    own = page.js("return [...document.querySelectorAll('.card')[1].querySelectorAll('.own')].map(o => +o.innerText)")
    assert len(own) == 4 and sum(own) == n - page.cards()[1]["gone"]
    assert page.js("return document.querySelector('#setting-link').getAttribute('href')").endswith(f"image={name}")
    assert f"--video-file {film.shown}" in page.js("return document.querySelector('.line code').textContent")
    page.press("#media button[role=tab]:nth-of-type(1)")


def test_uploads(page, pictures):
    for name, words in (("words.png", "not an image"), ("large.png", "1100 x 1000 pixels")):
        page.upload(pictures / name)
        page.wait(lambda: page.all("#image img, #image .file-name, #image [aria-label='Clear']"))
        page.ask()
        assert words in page.text("#message")
    page.upload(pictures / "heavy.png")  # refused by the server while it is sent
    said = page.wait(lambda: page.text(".toast-wrap") or page.text("#image .error"))
    assert "size" in said.lower() or "large" in said.lower()
    page.open(page.driver.current_url)
    page.upload(pictures / "my cat's.png")
    page.wait(lambda: "cat" in (page.js("return document.querySelector('#image img')?.src") or ""))
    page.type("#question", "What color is the square?")
    page.ask()
    assert page.text("#message") == "" and len(page.cards()) == 3
    assert "cat" in page.js("return document.querySelector('.line code').textContent")
    assert "leaves out your image" in page.js("return document.querySelector('.reproduce').textContent")


def test_a_link_gives_the_setting_back_on_a_phone(page, server):
    setting = Setting("Is it 50% & more?", (Choice("visionzip", "64", "contextual=4"), Choice("tome", "0.5")), "sign")
    page.errors()  # those of refused uploads
    page.size(*browsers.PHONE)
    page.open(server.url + setting.query())
    page.wait(lambda: page.js("return document.querySelector('#question textarea').value") == setting.question)
    page.ask()
    assert [card["name"] for card in page.cards()] == ["unpruned", "visionzip 64", "tome 0.5"]
    link = page.js("return document.querySelector('#setting-link').getAttribute('href')")
    assert link == setting.query()
    assert page.width() <= browsers.PHONE[0]
    assert page.strangers() == [] and page.errors() == []
