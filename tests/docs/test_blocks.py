"""Code blocks of the pages that no other file executes; one that nothing executes, parses or compares is an error."""

import importlib
import json
import re
import shlex
import sys
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from llava import DART
from llava.bench.results import content
from llava.eval import benchmarks
from llava.model.checkpoints import EMBEDDED
from llava.reduction import registry
from llava.serve.vllm import settings
from tests.blocks import PAGES, ROOT, blocks, inline_commands

EXECUTED = {  # page with programs -> file that executes all of them
    "README.md": "tests/test_readme.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/adding_models.md": "tests/docs/test_adding_models.py",
    "docs/speed.md": "tests/docs/test_blocks.py",
    "docs/vllm.md": "tests/docs/test_blocks.py",
}
COMPARED = {"README.md": "@article{", "playground/README.md": "data/eval/\n", "docs/measuring.md": '{"format"'}
"""Page -> beginning of the block that is no code, but compared with the code below."""
QUICK = re.compile(r"python -m llava\.(data( \w+)?|methods|bench flops( .*)?|report summary docs/\S+( --no-times)?)$")
COMMANDS = dict.fromkeys(
    command
    for page in PAGES.values()
    for command in [*inline_commands(page), *(line for block in blocks(page) for line in block.commands)]
)


def block_of(page, beginning):
    return next(block.text for block in blocks(PAGES[page]) if block.text.startswith(beginning))


def test_no_block_is_left_out():
    for name, page in PAGES.items():
        for block in blocks(page):
            if block.language == "python":
                assert (ROOT / EXECUTED[name]).is_file(), f"{name}:{block.line} is a program that no test executes"
            elif not block.commands:
                beginning = COMPARED.get(name)
                assert beginning and block.text.startswith(beginning), f"{name}:{block.line} is in no test"


@pytest.mark.parametrize("command", [command for command in COMMANDS if QUICK.match(command)])
def test_quick_commands_run(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[2:]
    module = importlib.import_module(words[0])
    main = module.main if hasattr(module, "main") else importlib.import_module(f"{words[0]}.__main__").main
    assert main(words[1:]) == 0
    assert capsys.readouterr().out.strip()


def test_there_are_quick_commands():
    assert len([command for command in COMMANDS if QUICK.match(command)]) >= 3


def test_the_compiled_path_runs_as_printed(tmp_path, monkeypatch, capsys):
    """Its first question of a size is answered without compiling, so no compiler is needed."""
    if not (EMBEDDED / "model.safetensors").is_file():
        pytest.skip("needs the embedded model")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), (200, 30, 30)).save("cat.png")
    exec(compile(block_of("docs/speed.md", "from llava import"), "speed.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_engine_is_given_what_the_page_says(monkeypatch):
    """With a stand-in for vLLM, which `tests/serve/vllm` runs in an environment of its own with these settings."""
    given = {}
    stand_in = ModuleType("vllm")
    stand_in.LLM = lambda model, **options: given.update(model=model, **options)
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    exec(compile(block_of("docs/vllm.md", "from vllm import"), "vllm.md", "exec"), {})
    assert set(given) == {"model", "hf_overrides"}
    kind = SimpleNamespace(model_type="llava")
    config = SimpleNamespace(hf_overrides=json.loads(json.dumps(given["hf_overrides"])), hf_config=kind)
    assert settings.of_model(config) == registry.create("dart_features", keep=128)


def test_folders_of_benchmarks_hold_what_the_page_says():
    layout = block_of("playground/README.md", "data/eval/")
    for name in benchmarks.names():
        benchmark = benchmarks.get(name)
        top, *inner = benchmark.folder.split("/")
        assert re.search(rf"^  {re.escape(top)}/", layout, re.MULTILINE), name
        assert all(part.split("_")[0] in layout for part in inner), name
        assert benchmark.question_path(ROOT / "data").name in layout, name


def test_the_result_file_has_the_keys_of_the_page():
    text = block_of("docs/measuring.md", '{"format"')
    shown = json.loads(re.sub(r"(?<=[ {])[A-Z]+(?=[,:}])|\.\.\.", lambda word: '"x"' if word[0] != "..." else "", text))
    assert list(shown) == list(content("flops", DART(), {}, {}, []))


def test_the_citation_is_of_the_paper_of_the_method():
    entry = block_of("README.md", "@article{")
    assert entry.count("{") == entry.count("}")
    assert DART.paper in entry and set(re.findall(r"^  (\w+) +=", entry, re.MULTILINE)) >= {"title", "author", "year"}
