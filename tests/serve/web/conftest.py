"""What tests of the demo share: a tiny checkpoint, the demo on it with the module's LIMITS, a browser on its server."""

import pytest

import llava
from tests.model.llava_folder import write_checkpoint
from tests.serve.web import browser as browsers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("web") / "llava")


@pytest.fixture(scope="module")
def demo(folder, request):
    from llava.serve.web.demo import Demo

    return Demo(*llava.load(folder, device="cpu"), request.module.LIMITS)


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    """A window on the module's `server`."""
    browser = browsers.Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.size(*browsers.DESKTOP)
        browser.open(server.url)
        yield browser
    finally:
        browser.close()
