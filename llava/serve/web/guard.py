"""A gate before the web server: only the paths the page needs, only files of the upload area, only small requests."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
OPEN = re.compile(
    r"/|/(config|login|logout|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/[^\\]*"
    rf"|{API}/(login_check|token|app_id|user|info|theme\.css|startup-events|upload|upload_progress|cancel|reset|queue/join"
    r"|queue/data|heartbeat/\w+|run/predict)/?"
)
FILE = re.compile(rf"{API}/file=(.*)", re.DOTALL)
SMALL = 64 * 1024  # bytes of a request that is no upload
ENVELOPE = 4096  # bytes that an upload may have beside its file

# Scripts and styles only from here (the page's own are inline), images also as data, and no connection elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """ASGI middleware.

    Args:
        app: what it protects.
        folders: the upload area and the examples; nothing else is served or read.
        upload_bytes: largest file that may be uploaded.
        area_bytes: what the upload area, the first of the folders, may hold altogether.
    """

    def __init__(self, app: App, folders: Sequence[str | Path], upload_bytes: int, area_bytes: int):
        self.app, self.upload_bytes, self.area_bytes = app, upload_bytes, area_bytes
        self.folders = [Path(folder).resolve() for folder in folders]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        file = FILE.fullmatch(path)
        if method not in ("GET", "HEAD", "POST") or not (self.inside(file[1]) if file else OPEN.fullmatch(path)):
            await _refuse(send, 404, "There is nothing here.")
        elif method != "POST":
            await self.app(scope, receive, _with_headers(send))
        elif path.rstrip("/") == f"{API}/upload":
            if _length(scope) > self.upload_bytes + ENVELOPE:
                await _refuse(send, 413, "The file is too large.")
            elif _length(scope) + _held(self.folders[0]) > self.area_bytes:
                await _refuse(send, 507, "Too many files were uploaded here lately: try again in an hour.")
            else:
                await self.app(scope, receive, _with_headers(send))
        else:
            body = await _body(receive)
            if body is None:
                await _refuse(send, 413, "The request is too large.")
            elif not self.allowed(body):
                await _refuse(send, 400, "The request names a file that was not uploaded here.")
            else:
                await self.app(scope, _replayed(body, receive), _with_headers(send))

    def inside(self, path: str) -> bool:
        """Whether a path, all links and dots followed, is a file of one of the folders."""
        try:
            file = Path(path).resolve()
            return file.is_file() and any(file.is_relative_to(folder) for folder in self.folders)
        except (OSError, ValueError):
            return False

    def allowed(self, body: bytes) -> bool:
        """Whether every file that a JSON request names is in one of the folders; other bodies name none."""
        try:
            return self._files_inside(json.loads(body))
        except (ValueError, RecursionError):
            return body.lstrip()[:1] not in (b"{", b"[")

    def _files_inside(self, value: Any) -> bool:
        if isinstance(value, dict):
            path = value.get("path")
            own = path is None or (isinstance(path, str) and self.inside(path))
            return own and all(map(self._files_inside, value.values()))
        return all(map(self._files_inside, value)) if isinstance(value, list) else True


def _held(folder: Path) -> int:
    """Bytes of all files below a folder; some may be deleted meanwhile."""
    held = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            held += file.lstat().st_size if file.is_file() else 0
    return held


def _length(scope: Message) -> int:
    """Bytes that a request announces; one that announces none counts as too large."""
    given = dict(scope["headers"]).get(b"content-length", b"")
    return int(given) if given.isdigit() else 2**62


async def _body(receive: Receive) -> bytes | None:
    """All of a request's body; None if it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > SMALL:
            return None
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
