"""Make images/web_desktop.png and images/web_phone.png from the running demo with the embedded model.

Usage: python scripts/web_screenshots.py [FOLDER]. Needs the extras web and dev, and Debian's chromium and
chromium-driver.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import llava  # noqa: E402
from llava.serve.web.__main__ import DEFAULTS  # noqa: E402
from llava.serve.web.demo import Demo  # noqa: E402
from llava.serve.web.server import Server  # noqa: E402
from llava.serve.web.settings import Setting  # noqa: E402
from tests.serve.web.browser import DESKTOP, PHONE, Browser, missing  # noqa: E402

COLOURS = 128
EXAMPLE = Setting("Describe the image.", DEFAULTS, "stars")
PHONE_SCREENS = 2  # how much of the phone's long page is shown


def shot(browser: Browser, file: Path, width: int, height: int) -> None:
    """Write what the window shows as a small PNG."""
    picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    picture = picture.crop((0, 0, width, height)).quantize(COLOURS, Image.Quantize.FASTOCTREE, kmeans=2)
    picture.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1000} kB")


def main(folder: Path) -> int:
    if missing():
        print(missing(), file=sys.stderr)
        return 2
    demo = Demo(*llava.load())
    demo.warm_up()
    with Server(demo, Setting(choices=DEFAULTS)) as server, tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            for name, (width, height) in (("web_desktop.png", DESKTOP), ("web_phone.png", PHONE)):
                browser.size(width, height)
                browser.open(server.url + EXAMPLE.query())
                browser.ask()  # once more, when everything is warm
                browser.ask()
                browser.js("document.activeElement.blur()")
                if name == "web_desktop.png":
                    browser.js("document.querySelector('.reproduce').open = true")
                else:
                    top = browser.js("return document.querySelector('#layers').getBoundingClientRect().top")
                    browser.size(width, PHONE_SCREENS * height)
                    browser.js("scrollTo(0, arguments[0])", top - 12)
                    height *= PHONE_SCREENS
                browser.js("return new Promise(done => setTimeout(done, 400))")
                shot(browser, folder / name, width, height)
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "images"))
