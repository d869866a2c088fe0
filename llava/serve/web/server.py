"""The demo's web server: Gradio behind a guard, with its own upload area, without telemetry or foreign fonts."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from llava.errors import LlavaError
from llava.serve.web.demo import Demo
from llava.serve.web.examples import EXAMPLES, FOLDER
from llava.serve.web.guard import Guard
from llava.serve.web.media import VIDEO
from llava.serve.web.settings import Setting

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
}
UPLOADS = "GRADIO_TEMP_DIR"  # where Gradio keeps uploaded files
SESSIONS = 20  # conversations held at once; each holds its image


class Server:
    """A running demo, to be used in a `with` block.

    Args:
        demo: the model behind it.
        defaults: what is filled in at first.
        host, port: where to listen; port 0 takes any free one.
        users: names and passwords; None asks for none.
        shared: words of the command line that say which model runs here.
    """

    def __init__(
        self,
        demo: Demo,
        defaults: Setting,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Sequence[tuple[str, str]] | None = None,
        shared: Sequence[str] = (),
    ):
        self.demo, self.defaults, self.host, self.port = demo, defaults, host, port
        self.users, self.shared = users, shared
        self.url = ""
        self._page: Any = None
        self._uploads: Any = None

    @classmethod
    def load(cls, config: Any, users: Sequence[tuple[str, str]] | None, defaults: Setting) -> Server:
        """Load the model that a configuration (`WebConfig`) names, and answer one question to warm up."""
        model, processor = config.model.load()
        demo = Demo(model, processor, config.all_limits())
        demo.warm_up()
        return cls(demo, defaults, config.host, config.port, users, config.shared_words())

    def __enter__(self) -> Server:
        # Gradio and the hub client read these when they are imported, so they are set before.
        self._uploads = tempfile.TemporaryDirectory(prefix="llava-web-")
        os.environ.update({**QUIET, UPLOADS: self._uploads.name})
        try:
            self._launch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._page is not None:
            self._page.close(verbose=False)
            self._page = None
        if self._uploads is not None:
            self._uploads.cleanup()
            self._uploads = None

    def wait(self) -> None:
        """Return never, but let Ctrl-C through."""
        threading.Event().wait()

    def _launch(self) -> None:
        from starlette.middleware import Middleware

        from llava.serve.web.page import build, looks

        limits = self.demo.limits
        name = next(iter(EXAMPLES))
        defaults = Setting(self.defaults.question or EXAMPLES[name].question, self.defaults.choices, name)
        examples = {name: example for name, example in EXAMPLES.items() if example.kind in self.demo.kinds}
        self._page = build(self.demo, examples, defaults, self.shared)
        self._page.queue(max_size=limits.waiting, api_open=False, default_concurrency_limit=4)
        largest = max(limits.image_bytes, limits.video_bytes if VIDEO in self.demo.kinds else 0)
        guard = Middleware(
            Guard,
            folders=[self._uploads.name, FOLDER],
            upload_bytes=largest,
            area_bytes=limits.uploads_bytes,
        )
        try:
            _, url, _ = self._page.launch(
                server_name=self.host,
                server_port=self.port or _free_port(self.host),
                auth=list(self.users) if self.users else None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                footer_links=[],
                run_history=False,
                allowed_paths=[str(FOLDER)],
                app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
                state_session_capacity=SESSIONS,
                max_file_size=largest,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                **looks(),
            )
        except OSError as error:
            raise LlavaError(
                f"{self.host}:{self.port} cannot be listened on ({error}): give another --port."
            ) from error
        self.url = url


def _free_port(host: str) -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
