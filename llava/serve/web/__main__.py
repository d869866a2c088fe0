"""The web demo: `python -m llava.serve.web`, on this machine only unless `--host` says otherwise."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from llava.commandline import run, say, warn
from llava.errors import BadInput
from llava.loadoptions import LoadOptions
from llava.serve.web.settings import Choice, Limits, Setting

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULTS = (Choice("dart", "128"), Choice("fastv", "128"), Choice("pyramiddrop", "128"))


@dataclass
class WebConfig:
    """Compare in the browser what each method keeps of an image, what the model then answers, and how fast."""

    model: LoadOptions = field(default_factory=LoadOptions)
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in (give --auth-file then)."""
    port: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 7860
    """Port to listen on; 0 takes any free one."""
    auth_file: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """File with NAME:PASSWORD on each line; visitors must give one of them. (No option takes a password itself, because
    other users of the machine can read command lines.)"""
    max_image_mb: Annotated[float, tyro.conf.arg(metavar="MB")] = Limits.image_bytes / 2**20
    """Largest image file that may be uploaded."""
    max_video_mb: Annotated[float, tyro.conf.arg(metavar="MB")] = Limits.video_bytes / 2**20
    """Largest video file that may be uploaded."""
    max_video_seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = Limits.video_seconds
    """Longest video that may be asked about."""
    max_waiting: Annotated[int, tyro.conf.arg(metavar="COUNT")] = Limits.waiting
    """Visitors that may wait for their turn; one is served at a time."""
    max_new_tokens: Annotated[int, tyro.conf.arg(metavar="COUNT")] = Limits.new_tokens
    """Longest answer."""

    def problems(self) -> list[str]:
        """Return one sentence for each value that cannot be used."""
        found = self.model.problems()
        if not 0 <= self.port <= 65535:
            found.append(f"--port {self.port} is no port: give a number from 1 to 65535, or 0 for any free one.")
        for name in ("max_image_mb", "max_video_mb", "max_video_seconds"):
            if not getattr(self, name) > 0:
                found.append(f"--{name.replace('_', '-')} {getattr(self, name)} is too small: give for example 10.")
        for name in ("max_waiting", "max_new_tokens"):
            if getattr(self, name) < 1:
                found.append(f"--{name.replace('_', '-')} {getattr(self, name)} is too small: give at least 1.")
        return found

    def all_limits(self) -> Limits:
        """What visitors may send."""
        return Limits(
            image_bytes=int(self.max_image_mb * 2**20),
            video_bytes=int(self.max_video_mb * 2**20),
            video_seconds=self.max_video_seconds,
            waiting=self.max_waiting,
            new_tokens=self.max_new_tokens,
        )

    def shared_words(self) -> list[str]:
        """Words of `llava.serve.cli` for the same model and the same longest answer."""
        return [*self.model.words(), "--max-new-tokens", str(self.max_new_tokens)]


def read_users(path: str) -> list[tuple[str, str]]:
    """Return names and passwords of a file.

    Raises:
        BadInput: no such file, or a line is not NAME:PASSWORD.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--auth-file {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    users = []
    for number, line in enumerate(lines, 1):
        name, colon, password = line.strip().partition(":")
        if line.strip() and not line.startswith("#"):
            if not (colon and name and password):
                raise BadInput(f"--auth-file {path}, line {number}: write NAME:PASSWORD.")
            users.append((name, password))
    if not users:
        raise BadInput(f"--auth-file {path} names nobody: write NAME:PASSWORD on a line.")
    return users


def serve(config: WebConfig) -> int:
    """Load the model, open the page, and serve it until Ctrl-C."""
    if find_spec("gradio") is None:
        raise BadInput(
            "The web demo needs gradio: type `pip install 'llava-dart[web]'` (or `pip install 'gradio>=6'`)."
        )
    users = read_users(config.auth_file) if config.auth_file is not None else None
    from llava.serve.web.server import Server  # here, because gradio takes seconds to import

    if config.host not in LOOPBACK and users is None:
        warn(f"Anybody who reaches {config.host} can use this page: --auth-file asks for a password.")
    say("Loading the model ...")
    server = Server.load(config, users, Setting(choices=DEFAULTS))
    with server:
        say(f"Open {server.url} in a browser; Ctrl-C ends the demo.")
        server.wait()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the demo; the exit code is 0 done, 1 failed, 2 bad input, 130 interrupted."""
    return run(serve, WebConfig, argv, prog="llava-web")


if __name__ == "__main__":
    sys.exit(main())
