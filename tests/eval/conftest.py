"""A small POPE, settings of a run, and a folder to work in, for the tests of `llava.eval`."""

import pytest

from llava.eval.runner import Settings
from tests.eval.small_data import write_mme, write_pope, write_textvqa


@pytest.fixture
def root(tmp_path):
    return write_pope(tmp_path / "pope")


@pytest.fixture
def settings(tmp_path):
    said = []
    return Settings(folder=tmp_path / "results", batch_size=4, progress=False, say=said.append)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the mini sets in the documented layout, entered."""
    home = tmp_path / "playground" / "data" / "eval"
    write_pope(home / "pope" / "mini")
    write_mme(home / "MME" / "mini")
    write_textvqa(home / "textvqa" / "mini")
    monkeypatch.chdir(tmp_path)
    return tmp_path
