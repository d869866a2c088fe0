"""The tutorial, executed as it stands: its files are written, its commands and programs are run one after the other."""

import importlib
import os
import re
import shlex
import sys

import pytest

from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry
from tests.blocks import ROOT, blocks
from tests.report.made_results import LAYERS

TEXT = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
FILES = {block.title: block.text for block in blocks(TEXT) if block.title}
NEEDED = [ROOT / path for path in sorted(set(re.findall(r"playground/\S+?\.jpg", TEXT)))] + [
    EMBEDDED / "model.safetensors"
]
pytestmark = pytest.mark.skipif(not all(path.is_file() for path in NEEDED), reason="needs embedded model and mini data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder in which the repository's data can be found, as in its root."""
    here = tmp_path_factory.mktemp("tutorial")
    (here / "playground").symlink_to(ROOT / "playground")
    return here


@pytest.fixture(autouse=True)
def as_in_a_new_process(folder, monkeypatch):
    """Each block knows only the methods of the package, and finds modules in the current folder."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


def run(command, capfd):
    """Run `python -m MODULE ...` in this process; return what it wrote."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    if words[2] == "pytest":
        code = nested_pytest([str(ROOT / word) if word.startswith("tests/") else word for word in words[3:]])
    else:
        module = words[2] if words[2].startswith("llava.serve") else f"{words[2]}.__main__"
        code = importlib.import_module(module).main(words[3:])
    written = capfd.readouterr()
    assert code == 0, written
    return written.out + written.err


def nested_pytest(words):
    """pytest in pytest: the tests that run over the register are imported anew, as it has more methods now."""
    names = [name for name in sys.modules if name.startswith("tests.model.test_every")]
    aside = {name: sys.modules.pop(name) for name in names}
    current = os.environ.get("PYTEST_CURRENT_TEST")
    try:
        return pytest.main([*words, "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"])
    finally:
        for name in [name for name in sys.modules if name.startswith("tests.model.test_every")]:
            del sys.modules[name]
        sys.modules.update(aside)
        if current:
            os.environ["PYTEST_CURRENT_TEST"] = current


PARTS = [block for block in blocks(TEXT) if block.language in ("bash", "python")]


@pytest.mark.parametrize("number", range(len(PARTS)), ids=lambda number: f"line{PARTS[number].line}")
def test_block(number, folder, capfd):
    block = PARTS[number]
    for part in PARTS[: number + 1]:  # so that a block can also be tested alone
        if part.title:
            (folder / part.title).write_text(part.text, encoding="utf-8")
    if block.title:
        assert registry.load_user_file(block.title) == block.title.removesuffix(".py")
    elif block.language == "python":
        pytest.importorskip("matplotlib")
        exec(compile(block.text, f"tutorial.md:{block.line}", "exec"), {})
        assert "unusual keeps 64 tokens" in capfd.readouterr().out
        assert (folder / "kept.png").stat().st_size > 10_000
    else:
        written = [run(command, capfd) for command in block.commands]
        check(block.commands, written)


def check(commands, written):
    """What the text around the block says about its output."""
    for command, text in zip(commands, written, strict=True):
        if "llava.serve.cli" in command:
            assert re.search(r": visual tokens 576 -> 64 ", text)
        elif "pytest" in command:
            assert re.search(r"\d+ passed", text) and "failed" not in text
        elif "summary" in command:
            rows = {line.split()[0]: line for line in text.splitlines() if "of 576" in line}
            assert set(rows) == {"none", "unusual", "edges", "dart"}
            assert all("64 of 576" in rows[name] for name in ("unusual", "edges", "dart"))
            mean = (2 * 576 + (LAYERS - 2) * 64) / LAYERS
            assert " 64.0 " in rows["edges"] and f" {mean:.1f} " in rows["unusual"]


def test_its_files_are_methods_of_both_kinds():
    assert set(FILES) == {"unusual.py", "edges.py"}
    assert "(InLLM)" in FILES["unusual.py"] and "(BeforeLLM)" in FILES["edges.py"]
