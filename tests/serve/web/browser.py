"""Driving the demo in a real headless Chromium; also used by scripts/web_screenshots.py."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --hide-scrollbars --force-device-scale-factor=1"
)
DESKTOP, PHONE = (1400, 1015), (390, 844)
PATIENCE = 60.0  # seconds


def missing() -> str:
    """What is not installed here; empty if a browser can be driven."""
    from importlib.util import find_spec

    for name in ("gradio", "selenium"):
        if find_spec(name) is None:
            return f"{name} is not installed (extras web and dev)"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt-get install chromium chromium-driver)"
    return ""


class Browser:
    """One window on the demo.

    Args:
        profile: an empty folder for the browser's own files.
    """

    def __init__(self, profile: Path):
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}", "--lang=en"]:
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()

    def size(self, width: int, height: int) -> None:
        """Make the window so large; narrow ones behave like a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        """Load the page and wait until it can be used."""
        self.driver.get(url)
        self.wait(lambda: self.all("#ask") and self.all("#examples img"))

    def all(self, selector: str) -> list[Any]:
        """Elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """What a person reads in the first element of a selector; empty if there is none."""
        found = self.all(selector)
        return found[0].text if found else ""

    def js(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until something is true, and return it.

        Raises:
            TimeoutError: it was not true in time.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except Exception as error:
                if type(error).__name__ != "StaleElementReferenceException":
                    raise
                found = None
            if found:
                return found
            if time.monotonic() > end:
                raise TimeoutError("The page did not get so far.")
            time.sleep(0.05)

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a box."""
        from selenium.webdriver.common.keys import Keys

        (box,) = self.all(f"{selector} textarea, {selector} input")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE)
        if text:
            box.send_keys(text)

    def upload(self, file: Path, kind: str = "image") -> None:
        """Put a file into the box for images, or that for videos."""
        if self.all(f'#{kind} button[aria-label="Clear"]'):
            self.js(f"document.querySelector('#{kind} button[aria-label=\"Clear\"]').click()")
        self.wait(lambda: self.all(f"#{kind} input[type=file]"))[0].send_keys(str(file))

    def press(self, selector: str) -> None:
        """Click, wherever on the page it is."""
        self.js("document.querySelector(arguments[0]).click()", selector)

    def ask(self, seconds: float = PATIENCE) -> None:
        """Press Ask and wait for the last column's answer, or for a message."""
        self.js("document.querySelector('#reproduce .reproduce, #message .message')?.remove()")
        self.press("#ask")
        self.wait(lambda: self.all("#reproduce .reproduce") or self.all("#message .message"), seconds)

    def cards(self) -> list[dict[str, Any]]:
        """Of every card: name, answers, numbers, cells and how many of them are gone, caption, problem."""
        return self.js(
            """return [...document.querySelectorAll('#cards .card')].filter(c => c.offsetParent).map(c => ({
                 name: c.querySelector('.card-head').innerText.split('\\n').slice(0, -1).join(' '),
                 cells: c.querySelectorAll('rect').length,
                 gone: c.querySelectorAll('rect.gone').length,
                 caption: c.querySelector('.seen').innerText.split(/\\s+/).join(' '),
                 answers: [...c.querySelectorAll('.chat .a')].map(a => a.innerText),
                 problem: c.querySelector('.problem')?.innerText ?? '',
                 numbers: c.querySelector('.numbers').innerText}))"""
        )

    def width(self) -> int:
        """How wide the page is, whatever sticks out included."""
        return self.js("return document.documentElement.scrollWidth")

    def strangers(self) -> list[str]:
        """Hosts other than the page's own that it has loaded anything from."""
        own = self.js("return location.host")
        hosts = self.js("return performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
        return sorted(set(hosts) - {own, ""})

    def errors(self) -> list[str]:
        """What the browser's console complains about."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
