"""MiniCPM-V and the families beyond the paper, from their folders, through the chat and the three evaluations."""

import json

import pytest
from PIL import Image

from llava.eval.__main__ import main as evaluate
from llava.serve.cli import main as chat
from tests.eval.small_data import write_mme, write_pope, write_textvqa
from tests.model import hf_folders, minicpm_v_folder

VISUAL = {  # visual tokens of a picture of 50 x 30 pixels
    "minicpm_v": 4 * (1 + 6),  # 5.9 times the area of a view: 3 x 2 slices
    "llava_onevision": 16 + 8 * (12 + 1),  # 3 x 3 tiles of 4 x 4, of whose twelve rows the picture fills eight
    "internvl": 4 * (1 + 6),  # 3 x 2 tiles are nearest to 50 : 30 among at most 12
    "smolvlm": 4 * (1 + 4),  # 24 x 14 pixels in tiles of 12
    "idefics3": 4 * (1 + 4),
    "gemma3": 4,
}


@pytest.fixture(scope="module", params=VISUAL)
def checkpoint(request, tmp_path_factory):
    folder, name = tmp_path_factory.mktemp("checkpoints") / request.param, request.param
    if name == "minicpm_v":
        return minicpm_v_folder.write_checkpoint(folder), name
    return hf_folders.write_checkpoint(folder, name), name


def test_three_benchmarks(checkpoint, tmp_path, monkeypatch):
    folder, family = checkpoint
    home = tmp_path / "playground" / "data" / "eval"
    for name, write in (("pope", write_pope), ("MME", write_mme), ("textvqa", write_textvqa)):
        write(home / name / "mini")
    monkeypatch.chdir(tmp_path)
    words = ["--limit", "3", "--max-new-tokens", "2", "--batch-size", "2", "--device", "cpu"]
    budget = ["--reduction-ratio", "0.5", "--set", "pivots_visual=1", "--set", "pivots_text=1"]
    assert evaluate(["pope", "mme", "textvqa", "--model-path", str(folder), *words, *budget]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    assert len(records) == 3
    assert {record["model"]["family"] for record in records} == {family}
    assert all(0 < r["accounting"]["final"] <= r["accounting"]["visual"] for r in records)


def test_chat(checkpoint, tmp_path, capsys):
    folder, family = checkpoint
    image = tmp_path / "image.png"
    Image.effect_noise((50, 30), 90).convert("RGB").save(image)
    words = ["--model-path", str(folder), "--image-file", str(image), "-p", "What is it?", "--max-new-tokens", "2"]
    method = ["--keep", "3", "--set", "pivots_visual=1", "--set", "pivots_text=1", "--device", "cpu"]
    assert chat([*words, *method]) == 0
    assert f"visual tokens {VISUAL[family]} -> 3" in capsys.readouterr().err
