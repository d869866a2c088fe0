"""The documentation site: what its navigation and hooks name exists; where MkDocs is installed, it builds strictly."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.blocks import ROOT

FOLDER = ROOT / "scripts/docs"
CONFIG = yaml.safe_load((FOLDER / "mkdocs.yml").read_text(encoding="utf-8"))
NAMES = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse((FOLDER / "hooks.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign)
    and isinstance(node.targets[0], ast.Name)
    and node.targets[0].id in ("SECTIONS", "WHOLE", "API")
}


def targets(nav):
    if isinstance(nav, str):
        return [nav]
    return [target for part in (nav.values() if isinstance(nav, dict) else nav) for target in targets(part)]


def test_navigation_names_pages_that_are_there():
    made = {"api/", *NAMES["WHOLE"], *NAMES["SECTIONS"]}
    missing = [name for name in targets(CONFIG["nav"]) if name not in made and not (ROOT / "docs" / name).exists()]
    assert not missing
    both = [name for name in made if (ROOT / "docs" / name).is_file()]
    assert not both, "a section of the README is made into a page of this name: take it out of SECTIONS in hooks.py"


def test_markdown_outside_of_docs_that_is_linked_becomes_a_page():
    """MkDocs cannot copy Markdown: hooks.py makes pages of the files in WHOLE only."""
    whole = set(NAMES["WHOLE"].values())
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in whole)]:
        for target in re.findall(r"\]\(((?!https?:)[^)#\s]+\.md)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            assert file.is_relative_to(ROOT / "docs") or file.relative_to(ROOT).as_posix() in whole, (page, target)


def test_sections_of_the_readme_that_become_pages_are_there():
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(NAMES["SECTIONS"].values()) <= set(headings)


def test_api_pages_show_what_exists_with_a_docstring():
    for _, _, objects in NAMES["API"].values():
        for name in objects:
            if name == "llava.reduction.registry":
                assert importlib.import_module(name).__doc__
            else:
                module, _, attribute = name.rpartition(".")
                assert getattr(importlib.import_module(module), attribute).__doc__


def test_nothing_comes_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    assert "://" not in yaml.safe_dump({**CONFIG, "site_url": ""})


def test_it_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    """Pages, pictures and linked sources; scripts, styles and images are all in the site."""
    pytest.importorskip("mkdocs", reason="MkDocs is in an environment of its own: bash scripts/docs.sh")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(FOLDER / "mkdocs.yml")]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site"
    assert (site / "repository/llava/reduction/dart.py").is_file()
    assert (site / "repository/images/methods/dart.png").is_file()
    assert 'id="llava.model.pruning.Pruning"' in (site / "api/index.html").read_text(encoding="utf-8")
    pattern = r"<(?:script|img|iframe)[^>]+src=[\"']?https?:|<link[^>]+rel=[\"']?stylesheet[\"']?[^>]+https?:"
    assert not [page for page in site.rglob("*.html") if re.search(pattern, page.read_text(encoding="utf-8"))]
    shutil.rmtree(site)
