"""The running server, asked without a browser: what it serves, what it refuses, passwords, and life without Gradio."""

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from llava.errors import BadInput
from llava.loadoptions import LoadOptions
from llava.serve.web import __main__ as web
from llava.serve.web.examples import EXAMPLES, FOLDER
from llava.serve.web.media import IMAGE, VIDEO
from llava.serve.web.settings import Choice, Limits, Setting

ROOT = Path(__file__).parents[3]
NEEDS_GRADIO = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed (extra web)")
LIMITS = Limits(image_bytes=100_000, video_bytes=100_000, new_tokens=4)


@pytest.fixture(scope="module")
def server(demo):
    from llava.serve.web.server import Server

    with Server(demo, Setting("Is it red?", (Choice("dart", "2"),)), users=[("ada", "secret")]) as running:
        yield running


def get(server, path, cookie="", data=None, **headers):
    """Status and body; `path` is sent as it is."""
    request = urllib.request.Request(server.url.rstrip("/") + path, data=data, headers=headers)
    if cookie:
        request.add_header("Cookie", cookie)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.fixture(scope="module")
def cookie(server):
    status, _, headers = get(server, "/login", data=b"username=ada&password=secret")
    assert status == 200
    return "; ".join(value.partition(";")[0] for name, value in headers.items() if name.lower() == "set-cookie")


@NEEDS_GRADIO
class TestServer:
    def test_listens_on_this_machine_only(self, server):
        assert server.url.startswith("http://127.0.0.1:")

    def test_asks_for_a_password(self, server, cookie):
        assert get(server, "/login", data=b"username=ada&password=wrong")[0] in (400, 401)
        example = FOLDER / "stars.jpg"
        for path in ("/config", f"/gradio_api/file={example}", "/gradio_api/upload_progress?upload_id=x"):
            assert get(server, path)[0] == 401
        assert get(server, f"/gradio_api/file={example}", cookie)[1] == example.read_bytes()

    def test_serves_no_other_file(self, server, cookie):
        here = ROOT / "pyproject.toml"
        for path in (
            "/gradio_api/file=/etc/passwd",
            "/gradio_api/file=%2Fetc%2Fpasswd",
            "/gradio_api/file=..%2f..%2f..%2f..%2fetc%2fpasswd",
            "/gradio_api/file%3D/etc/passwd",
            f"/gradio_api/file={FOLDER}/../../../../../../../../etc/passwd",
            f"/gradio_api/file={FOLDER}/..%252f..%252fpage.py",
            f"/gradio_api/file={here}",
            "/gradio_api/file=pyproject.toml",
            "/gradio_api/file=http://127.0.0.1:9/x",
            "/gradio_api/file/etc/passwd",
            "/file=/etc/passwd",
            "/file/etc/passwd",
            "/static/../../../../../../etc/passwd",
            "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/assets/..%2f..%2f..%2fpackage.json",
            "/gradio_api/proxy=https://example.hf.space/x",
            "/gradio_api/call/ask",
            "/gradio_api/run/ask",
            "/monitoring",
        ):
            status, body, _ = get(server, path, cookie)
            assert status in (400, 401, 403, 404), path
            assert b"root:" not in body and b"llava-dart" not in body

    def test_uploads_are_limited(self, server, cookie):
        def upload(size):
            body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"x" * size
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            return get(server, "/gradio_api/upload", cookie, body + b"\r\n--b--\r\n", **kind)

        status, body, _ = upload(1000)
        assert status == 200 and b"/llava-web-" in body
        with contextlib.suppress(urllib.error.URLError):  # the server may close the connection before all is sent
            assert upload(200_000)[0] in (400, 413)

    def test_what_visitors_upload_is_never_a_page(self, server, cookie):
        for name in ("page.html", "page.svg", "script.js"):
            body = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n<script>1</script>'
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            _, sent, _ = get(server, "/gradio_api/upload", cookie, body.encode() + b"\r\n--b--\r\n", **kind)
            status, _, headers = get(server, f"/gradio_api/file={json.loads(sent)[0]}", cookie)
            assert status == 200 and headers["content-disposition"].startswith("attachment")
            assert headers["x-content-type-options"] == "nosniff"

    def test_questions_go_through_the_queue_only(self, server, cookie):
        """Functions that compute cannot be called past it."""
        functions = json.loads(get(server, "/config", cookie)[1])["dependencies"]
        (ask,) = [
            function["id"] for function in functions if function["targets"][0][1] == "click" and function["queue"]
        ]
        body = json.dumps({"data": [], "fn_index": ask, "session_hash": "a"}).encode()
        status, _, _ = get(server, "/gradio_api/run/predict", cookie, body, **{"Content-Type": "application/json"})
        assert status == 404

    def test_says_that_nothing_is_to_be_loaded_from_elsewhere(self, server):
        status, page, headers = get(server, "/")
        assert status == 200 and b"fonts.googleapis.com" not in page and b"cdnjs" not in page
        assert "default-src 'self'" in headers["content-security-policy"]


def test_without_gradio_it_says_what_to_install():
    script = (
        "import sys; sys.modules['gradio'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
        "import llava.serve.web, llava.serve.web.__main__ as web\n"
        "sys.exit(web.main([]))"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and "pip install 'llava-dart[web]'" in ran.stderr and "Traceback" not in ran.stderr


class TestOptions:
    def test_mistakes_are_told_together(self, capsys):
        words = ["--port", "99999", "--max-waiting", "0", "--max-image-mb", "0", "--max-video-seconds", "-1"]
        assert web.main([*words, "--hots", "x"]) == 2
        said = capsys.readouterr().err
        for told in ("99999", "--max-waiting 0", "--max-image-mb 0", "--max-video-seconds -1", "--host"):
            assert told in said

    def test_users(self, tmp_path):
        file = tmp_path / "users"
        file.write_text("# names\nada:pass:word\n\nbob:x\n")
        assert web.read_users(str(file)) == [("ada", "pass:word"), ("bob", "x")]
        for text, words in (("ada\n", "line 1"), ("ada:\n", "line 1"), ("\n", "names nobody")):
            file.write_text(text)
            with pytest.raises(BadInput, match=words):
                web.read_users(str(file))
        with pytest.raises(BadInput, match="cannot be read"):
            web.read_users(str(tmp_path / "none"))

    def test_the_command_line_names_the_same_model(self):
        config = web.WebConfig(LoadOptions(model_path="m", dtype="float32", load_4bit=True), max_new_tokens=9)
        assert config.shared_words() == [
            *("--model-path", "m", "--dtype", "float32", "--load-4bit", "--max-new-tokens", "9")
        ]
        assert config.all_limits().image_bytes == Limits().image_bytes

    def test_examples_are_images_with_questions(self):
        for example in EXAMPLES.values():
            assert example.picture.suffix == ".jpg" and example.picture.is_file() and example.question
            assert example.file.is_file() and example.file.suffix == {IMAGE: ".jpg", VIDEO: ".mp4"}[example.kind]
            assert (Path.cwd() / example.shown).samefile(example.file)


@NEEDS_GRADIO
def test_a_port_in_use_is_told(demo):
    import socket

    from llava.errors import LlavaError
    from llava.serve.web.server import Server

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LlavaError, match=f"{port}.*--port"), Server(demo, Setting(), port=port):
            pass
