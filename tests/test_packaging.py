"""What `pip install` brings: every module, every asset, commands and plug-ins that exist, and the types."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
tomllib = pytest.importorskip("tomllib")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIG["project"]
SOURCES = [path for path in (ROOT / "llava").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
ENTRIES = {
    **PROJECT["scripts"],
    **{f"{group}/{name}": place for group, own in PROJECT["entry-points"].items() for name, place in own.items()},
}


def test_every_folder_with_modules_is_a_package():
    """`find` of setuptools leaves a folder out that has no __init__.py, and with it all that lies below."""
    setuptools = pytest.importorskip("setuptools")
    found = setuptools.find_packages(str(ROOT), **CONFIG["tool"]["setuptools"]["packages"]["find"])
    due = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.suffix == ".py"}
    assert due == set(found)


def test_every_other_file_is_package_data():
    patterns = CONFIG["tool"]["setuptools"]["package-data"]["llava"]
    covered = {path for pattern in patterns for path in (ROOT / "llava").glob(_files(pattern)) if path.is_file()}
    left = [str(path.relative_to(ROOT)) for path in SOURCES if path.suffix != ".py" and path not in covered]
    assert not left, f"add to [tool.setuptools.package-data]: {left}"
    assert ROOT / "llava/py.typed" in covered and ROOT / "llava/assets/llava-nano/model.safetensors" in covered


def _files(pattern):
    """setuptools' `**` at the end matches files; pathlib's only folders."""
    return f"{pattern}/*" if pattern.endswith("**") else pattern


@pytest.mark.parametrize("name", ENTRIES)
def test_commands_and_plug_ins_lead_somewhere(name):
    module, _, attribute = ENTRIES[name].partition(":")
    try:
        assert callable(getattr(importlib.import_module(module), attribute))
    except ModuleNotFoundError as missing:
        if str(missing.name).split(".")[0] == "llava":
            raise
        pytest.skip(f"needs {missing.name}")


def test_the_three_commands_are_there():
    assert {"llava-chat", "llava-eval", "llava-web"} == set(PROJECT["scripts"])


def test_extras_of_the_test_script_exist():
    words = (ROOT / "scripts/test.sh").read_text(encoding="utf-8").split('SETUP_EXTRAS="')[1].split('"')[0]
    assert set(words.split()) <= set(PROJECT["optional-dependencies"])
