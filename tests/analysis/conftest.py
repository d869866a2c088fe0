"""A tiny random LLaVA with 6 x 6 visual tokens, and the commands run on it."""

import json

import pytest

from llava.analysis import __main__ as command
from llava.report.figures import style
from tests.model import llava_folder

SIDE = 84  # pixels


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(llava_folder.VISION, "image_size", SIDE)
        patch.setitem(llava_folder.PREPROCESSOR, "size", {"shortest_edge": SIDE})
        patch.setitem(llava_folder.PREPROCESSOR, "crop_size", {"height": SIDE, "width": SIDE})
        return llava_folder.write_checkpoint(tmp_path_factory.mktemp("tiny") / "llava")


@pytest.fixture
def analyse(checkpoint, tmp_path, capsys, monkeypatch):
    """Run a command; returns the exit code, the JSON it wrote (None: none) and what it said on both screens."""

    monkeypatch.setattr(style, "DPI", 30)  # drawing is what takes long

    def run(name, *words, folder="out"):
        output = tmp_path / folder
        given = ["--model-path", str(checkpoint), "--device", "cpu", "--output", str(output), *map(str, words)]
        code = command.main([name, *given])
        path = output / f"{name}.json"
        return code, json.loads(path.read_text()) if path.is_file() else None, *capsys.readouterr()

    return run
