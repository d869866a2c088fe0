"""LLaVA-1.5 and LLaVA-NeXT folders in the original format, through the chat and the three evaluations, in process."""

import json

import pytest
from PIL import Image

from llava.eval.__main__ import main as evaluate
from llava.serve.cli import main as chat
from tests.eval.small_data import write_mme, write_pope, write_textvqa
from tests.model.llava_folder import write_checkpoint
from tests.model.original_folder import write_original


@pytest.fixture(scope="module", params=[False, True], ids=["llava-1.5", "llava-next"])
def checkpoint(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("checkpoints")
    converted = write_checkpoint(home / "converted", tiled=request.param)
    return write_original(converted, home / "original", tiled=request.param), request.param


def test_three_benchmarks(checkpoint, tmp_path, monkeypatch, capsys):
    folder, tiled = checkpoint
    home = tmp_path / "playground" / "data" / "eval"
    for name, write in (("pope", write_pope), ("MME", write_mme), ("textvqa", write_textvqa)):
        write(home / name / "mini")
    monkeypatch.chdir(tmp_path)
    words = ["--limit", "3", "--max-new-tokens", "2", "--batch-size", "2", "--set", "pivots_visual=1"]
    budget = ["--reduction-ratio", "0.5", "--max-num-tokens", "2", "--set", "pivots_text=1"]
    assert evaluate(["pope", "mme", "textvqa", "--model-path", str(folder), *words, *budget]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    assert len(records) == 3
    family = "llava_next" if tiled else "llava"
    assert {record["model"]["family"] for record in records} == {family}
    # The released NeXT rule ignores both arguments; LLaVA-1.5's takes the count.
    assert {record["method"]["options"]["keep"] for record in records} == {320 if tiled else 2}
    assert (
        "LLaVA-NeXT rule: 320 tokens count" if tiled else "LLaVA-1.5 rule: budget 2 counts"
    ) in capsys.readouterr().out


def test_chat(checkpoint, tmp_path, capsys):
    folder, tiled = checkpoint
    image = tmp_path / "image.png"
    Image.new("RGB", (50, 30), (200, 30, 30)).save(image)
    words = ["--model-path", str(folder), "--image-file", str(image), "-p", "What is it?", "--max-new-tokens", "2"]
    method = ["--keep", "3", "--set", "pivots_visual=1", "--set", "pivots_text=1"]
    assert chat([*words, *method]) == 0
    n_visual = 4 + 2 * (4 + 1) if tiled else 4  # 2 x 2 tiles of 2 x 2 patches; two of the four rows show the image
    assert f"visual tokens {n_visual} -> 3" in capsys.readouterr().err


def test_chat_in_another_template(checkpoint, capsys):
    words = ["--model-path", str(checkpoint[0]), "-p", "Hi", "--max-new-tokens", "1", "--conv-mode", "mistral_instruct"]
    assert chat([*words, "--debug"]) == 0
    assert "'[INST] Hi [/INST]'" in capsys.readouterr().err
