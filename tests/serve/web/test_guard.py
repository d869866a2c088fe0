"""The gate before the web server: what it lets through, without any server."""

import asyncio
import json

import pytest

from llava.serve.web.guard import SMALL, Guard

API = "/gradio_api"
HELD = 3000  # bytes


@pytest.fixture
def area(tmp_path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "cat.png").write_bytes(b"cat")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "uploads" / "link").symlink_to(tmp_path / "secret.txt")
    return tmp_path


def ask(area, path, method="GET", body=b"", headers=(), kind="http"):
    """Status, headers and body of the answer of an application that says 200 to everything behind the guard."""
    sent = []

    async def app(scope, receive, send):
        got = await receive() if scope["method"] == "POST" else {"body": b""}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": got["body"]})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "method": method, "headers": list(headers)}
    asyncio.run(Guard(app, [area / "uploads"], 1000, HELD)(scope, receive, send))
    return (sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]) if sent else None


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/index-1.js", f"{API}/queue/data", f"{API}/heartbeat/a1", f"{API}/run/predict"]
)
def test_what_the_page_needs_passes(area, path):
    status, headers, _ = ask(area, path)
    assert status == 200
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "http" not in policy


def test_only_uploaded_files_are_served(area):
    inside = area / "uploads" / "cat.png"
    assert ask(area, f"{API}/file={inside}")[0] == 200
    outside = [
        "/etc/passwd",
        str(area / "secret.txt"),
        f"{area}/uploads/../secret.txt",
        f"{area}/uploads/link",
        f"{area}/uploads",
        "../../etc/passwd",
        "pyproject.toml",
        "file:///etc/passwd",
        "http://127.0.0.1:80/",
        "https://example.org/cat.png",
        "/etc/passwd\0.png",
        "",
    ]
    assert {path: ask(area, f"{API}/file={path}")[0] for path in outside} == dict.fromkeys(outside, 404)


@pytest.mark.parametrize(
    "path",
    [f"{API}/proxy=https://x.hf.space/", f"{API}/file/etc/passwd", f"{API}/stream/1", "/monitoring", f"{API}/vibe-edit"]
    + [
        "/docs",
        "/openapi.json",
        f"{API}/run/ask",
        f"{API}/call/ask",
        f"{API}/component_server",
        "/gradio_api/../x",
    ],
)
def test_other_doors_are_closed(area, path):
    assert ask(area, path)[0] == 404 and ask(area, path, "POST", b"{}")[0] == 404


def test_other_methods_and_websockets_are_closed(area):
    assert ask(area, "/", "DELETE")[0] == 404
    assert ask(area, "/", kind="websocket") is None


def test_requests_may_only_name_uploaded_files(area):
    def join(value):
        return ask(area, f"{API}/queue/join", "POST", json.dumps({"data": [value, "dart"]}).encode())

    good = {"path": str(area / "uploads" / "cat.png"), "url": "http://127.0.0.1/x", "meta": {}}
    assert join(good)[0] == 200 and json.loads(join(good)[2])["data"][0] == good
    assert join("plain words")[0] == join(None)[0] == 200
    for path in ("/etc/passwd", "http://example.org/cat.png", str(area / "secret.txt"), 7):
        assert join({"path": path})[0] == join([{"deep": [{"path": path}]}])[0] == 400
    assert ask(area, f"{API}/queue/join", "POST", b'{"path": "/etc/passwd"')[0] == 400
    assert ask(area, f"{API}/queue/join", "POST", b"[" * 60000)[0] == 400
    assert ask(area, "/login", "POST", b"username=a&password=b")[0] == 200


def test_sizes(area):
    assert ask(area, f"{API}/queue/join", "POST", b" " * (SMALL + 1))[0] == 413
    for length, status in ((b"1000", 200), (b"9999", 413), (b"", 413)):
        assert ask(area, f"{API}/upload", "POST", headers=[(b"content-length", length)])[0] == status


def test_the_upload_area_has_a_limit(area):
    def upload():
        return ask(area, f"{API}/upload", "POST", headers=[(b"content-length", b"1000")])[0]

    assert upload() == 200
    (area / "uploads" / "deep").mkdir()
    (area / "uploads" / "deep" / "dog.png").write_bytes(b"x" * (HELD - 900))
    assert upload() == 507
    (area / "uploads" / "deep" / "dog.png").unlink()
    assert upload() == 200
