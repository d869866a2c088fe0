"""`python -m llava.eval` with Qwen2-VL and Video-LLaVA: the three benchmarks on tiny checkpoints, the released rule."""

import json

import pytest

from llava.eval import benchmarks
from llava.eval.__main__ import main
from tests.eval.small_sets import write_video as write_questions
from tests.model import media_reference as media

SMALL_DART = ["--set", "pivots_visual=1", "--set", "pivots_text=1", "--max-new-tokens", "2", "--device", "cpu"]


@pytest.mark.parametrize("kind", ["qwen2_vl", "video_llava"])
def test_three_benchmarks(kind, workplace, capsys):
    folder = media.write(workplace / kind, kind)
    released = ["--reduction-ratio", "0.5", "--max-num-tokens", "2"]
    words = ["pope", "mme", "textvqa", "--model-path", str(folder), "--limit", "4", *released, *SMALL_DART]
    assert main([*words, *(["--max-pixels", "12544"] if kind == "qwen2_vl" else [])]) == 0
    screen = capsys.readouterr().out
    rule = "Qwen2-VL rule: reduction ratio 0.5 counts; budget 2 ignored"
    assert (rule if kind == "qwen2_vl" else "budget 2 counts; reduction ratio 0.5 ignored") in screen
    records = [json.loads(path.read_text()) for path in workplace.glob("results/*.json")]
    assert {record["benchmark"] for record in records} == {"pope", "mme", "textvqa"}
    for record in records:
        assert record["accounting"]["final"] < record["accounting"]["visual"]
        limits = {"min_pixels": 3136, "max_pixels": 12544} if kind == "qwen2_vl" else None
        assert record["configuration"].get("pixels") == limits


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "video_llava"])
def test_questions_about_real_clips(kind, workplace, capsys):
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    from tests.model.test_video import write_video

    folder = media.write(workplace / kind, kind)
    benchmark = benchmarks.get("msvd_qa")
    root = workplace / "playground" / "data" / "eval" / benchmark.folder / "mini"
    write_questions(root, benchmark.videos)  # three questions; the files of the clips hold no films
    for number in (0, 2):
        write_video(root / benchmark.videos / f"video{number}.mp4", size=(64, 64), n_frames=6 + number)
    words = ["msvd_qa", "--model-path", str(folder), "--reduction-ratio", "0.5", *SMALL_DART, "--output", "r.json"]
    assert main(words) == 0
    record = json.loads((workplace / "r.json").read_text())
    assert record["accounting"]["visual"] == (40 if kind == "video_llava" else 2 * 144)
    assert record["accounting"]["final"] < record["accounting"]["visual"]
    rows = [json.loads(line) for line in (workplace / "r.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and "video1.mp4 is no video of a known kind" in json.dumps(rows[1])
