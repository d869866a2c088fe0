"""Make the pictures of the web demo, images/web_*.png, from the running demo with the embedded model.

Usage: python scripts/web_screenshots.py, or with FOLDER [NAME ...] for these and more. Needs the extras web and dev,
and Debian's chromium and chromium-driver. Run it again when the embedded model or the page has changed, and look at
the pictures.
"""

import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import llava  # noqa: E402
from llava.serve.web.__main__ import DEFAULTS  # noqa: E402
from llava.serve.web.demo import Demo  # noqa: E402
from llava.serve.web.examples import EXAMPLES  # noqa: E402
from llava.serve.web.server import Server  # noqa: E402
from llava.serve.web.settings import Choice, Setting  # noqa: E402
from tests.serve.web.browser import DESKTOP, PHONE, Browser, missing  # noqa: E402

COLOURS = 128
ABOVE = 12  # pixels above what is scrolled to
PATIENCE = 240.0  # seconds for an answer
POINTED_CARD, POINTED_CELL = 2, 0.31  # of the second method, a cell in this part of the picture


@dataclass(frozen=True)
class Shot:
    """A picture to make: its name, the setting, the window, and what to do before."""

    name: str
    setting: Setting
    size: tuple[int, int]
    prepare: Callable[[Browser], None]
    again: bool = True


def example(name: str, *choices: Choice) -> Setting:
    """An example with its own question."""
    return Setting(EXAMPLES[name].question, choices or DEFAULTS, name)


def unfold(browser: Browser) -> None:
    """Show how to reproduce it."""
    browser.js("document.querySelector('.reproduce').open = true")


def results(browser: Browser) -> None:
    """Scroll to the results."""
    top = browser.js("return document.querySelector('#layers').getBoundingClientRect().top + scrollY")
    browser.js("scrollTo(0, arguments[0])", top - ABOVE)


def scores(browser: Browser) -> None:
    """Go back to the middle layer, colour by score and point at a patch."""
    browser.js(
        "const s = document.querySelector('#layer'); s.value = Math.round(s.max / 2);"
        "s.dispatchEvent(new Event('input', {bubbles: true})); document.querySelector('#shade').click();"
        "const cells = document.querySelectorAll('.card')[arguments[0]].querySelectorAll('rect[data-s]:not(.gone)');"
        "cells[Math.floor(cells.length * arguments[1])]"
        ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))",
        POINTED_CARD,
        POINTED_CELL,
    )


def mistake(browser: Browser) -> None:
    """Ask with a budget that cannot be read, and show the whole page."""
    browser.type("#budget-1", "many")
    browser.ask(PATIENCE)
    browser.js("return new Promise(done => setTimeout(done, 1000))")  # until it has scrolled
    browser.js("scrollTo(0, 0)")


PHONE_LONG = (PHONE[0], 2 * PHONE[1])  # the phone's page is long
SHOTS = (
    Shot("web_desktop", example("stars"), (DESKTOP[0], 1045), unfold),
    Shot("web_scores", example("sign"), (DESKTOP[0], 700), scores, again=False),
    Shot("web_video", example("clip"), (DESKTOP[0], 900), lambda browser: None, again=False),
    Shot("web_phone", example("stars"), PHONE_LONG, results),
    Shot("web_phone_top", example("stars"), PHONE_LONG, mistake, again=False),
    Shot("web_phone_video", example("clip"), PHONE_LONG, results, again=False),
)
SHOWN = ("web_desktop", "web_scores", "web_video", "web_phone")  # kept; the others are for looking at


def shoot(browser: Browser, url: str, shot: Shot, file: Path) -> None:
    """Write what the window shows as a small PNG."""
    browser.size(*shot.size)
    browser.open(url + shot.setting.query())
    box = "return document.querySelector('#question textarea').value"
    browser.wait(lambda: browser.js(box) == shot.setting.question)  # the link has filled the page
    browser.js("return new Promise(done => setTimeout(done, 600))")
    browser.ask(PATIENCE)
    if shot.again:
        browser.ask(PATIENCE)  # once more, when everything is warm
    browser.js("document.activeElement.blur()")
    shot.prepare(browser)
    browser.js("return new Promise(done => setTimeout(done, 600))")
    picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    picture = picture.crop((0, 0, *shot.size)).quantize(COLOURS, Image.Quantize.FASTOCTREE, kmeans=2)
    picture.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1000} kB")
    for sort, found in (("Complaints", browser.errors()), ("Foreign hosts", browser.strangers())):
        if found:
            print(f"{sort}: {found}")
    if browser.width() > shot.size[0]:
        print(f"The page is {browser.width()} pixels wide, the window {shot.size[0]}.")


def main(folder: Path | None, names: list[str]) -> int:
    if missing():
        print(missing(), file=sys.stderr)
        return 2
    demo = Demo(*llava.load())
    demo.warm_up()
    shots = [shot for shot in SHOTS if shot.name in (names or SHOWN) or (folder is not None and not names)]
    with Server(demo, Setting(choices=DEFAULTS)) as server, tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            for shot in shots:
                shoot(browser, server.url, shot, (folder or ROOT / "images") / f"{shot.name}.png")
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:]))
