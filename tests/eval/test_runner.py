"""The runner: order, resume, errors of single questions, interruption, what the results JSON says."""

import json
from pathlib import Path

import pytest
import torch

from llava.errors import BadInput
from llava.eval.benchmarks import get
from llava.eval.generation import answer_batch
from llava.eval.runner import Interrupted, Settings, plan, run_benchmark
from tests.eval import fakes
from tests.eval.fakes import FakeModel, FakeProcessor
from tests.eval.small_data import read_lines
from tests.eval.small_sets import write_video


def run(root, settings, loaded=None, method=None, limit=None):
    data = fakes.dataset(root)
    questions = data.benchmark.questions(root, limit=limit)
    return run_benchmark(data, questions, loaded or fakes.loaded(), method or fakes.method(), settings)


def without_ids(path):
    return [{**row, "answer_id": None} for row in read_lines(path)]


def test_answers_stand_in_question_order_in_llavas_format(root, settings):
    record = run(root, settings)
    rows = read_lines(_answers(record))
    questions = read_lines(root / "llava_pope_test.jsonl")
    assert [(r["question_id"], r["prompt"]) for r in rows] == [(q["question_id"], q["text"]) for q in questions]
    assert set(rows[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert rows[0]["model_id"] == "fake-7b" and rows[0]["metadata"] == {} and len({r["answer_id"] for r in rows}) == 18


def test_results_json(root, settings):
    record = run(root, settings)
    stored = json.loads(Path(record["results_file"]).read_text())
    assert stored == json.loads(json.dumps(record))
    assert stored["headline"]["value"] == 100 and stored["split"] == "mini" and stored["official"] == []
    assert stored["samples"] == {"scored": 18, "in_data_set": 18, "limit": None, "errors": 0, "reused": 0}
    assert stored["method"]["name"] == "fake" and stored["method"]["options"] == {"keep": 128}
    counts = stored["accounting"]
    assert (counts["visual"], counts["asked"], counts["final"], counts["mean_over_layers"]) == (576, 128, 132, 150)
    assert counts["kept"] == [132] and counts["cache_bytes"] == 1000
    assert counts["selection_seconds"] == pytest.approx(0.002)
    for part in ("preprocess", "first_token", "decode", "generate", "total"):
        assert stored["timings"][part]["median_s"] >= 0
    assert stored["timings"]["samples"] == 14  # the first batch of four warms the machine up
    assert stored["model"] == {"path": "models/fake-7b", "name": "fake-7b", "family": "llava", "weights_digest": "abc"}
    for name in ("device", "dtype", "attention", "versions", "git_commit", "started", "finished", "run_id", "seed"):
        assert name in stored


def test_official_number_only_for_the_complete_full_set(root, settings):
    data = fakes.dataset(root, kind="full")
    questions = data.benchmark.questions(root)
    record = run_benchmark(data, questions, fakes.loaded(), fakes.method(), settings)
    assert record["official"][0]["model"] == "LLaVA-1.5-7B" and record["official"][0]["value"] == 85.9
    some = data.benchmark.questions(root, limit=6)
    assert run_benchmark(data, some, fakes.loaded(), fakes.method(), settings)["official"] == []


def test_a_finished_run_is_not_computed_again(root, settings):
    first = run(root, settings)
    again = fakes.loaded()
    record = run(root, settings, again)
    assert again.model.batches == [] and record["samples"]["reused"] == 18
    assert record["accounting"] == first["accounting"] and record["timings"] == first["timings"]


def test_batch_size_does_not_change_the_run(root, settings):
    one = Settings(**{**vars(settings), "batch_size": 1})
    data = fakes.dataset(root)
    questions = data.benchmark.questions(root)
    plans = [plan(data, questions, fakes.loaded(), fakes.method(), s).run_id for s in (settings, one)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("size", [0, 1, 700, 1234, 2500])
def test_a_killed_run_continues_to_the_same_answers(root, settings, size):
    record = run(root, settings)
    whole = without_ids(_answers(record))
    _answers(record).write_bytes(_answers(record).read_bytes()[:size])
    again = fakes.loaded()
    record = run(root, settings, again)
    assert without_ids(_answers(record)) == whole and record["headline"]["value"] == 100
    # The batch that was cut short is asked as a whole: the batches are those of an uninterrupted run.
    assert again.model.batches == [4, 4, 4, 4, 2][-len(again.model.batches) :]


def test_interruption_keeps_what_is_done(root, settings):
    with pytest.raises(Interrupted, match="8 of 18 answers are kept"):
        run(root, settings, fakes.loaded(fail_at=2, error=KeyboardInterrupt()))
    again = fakes.loaded()
    record = run(root, settings, again)
    assert again.model.batches == [4, 4, 2] and record["samples"]["reused"] == 8
    assert record["headline"]["value"] == 100


def test_one_bad_image_is_recorded_and_asked_again_later(root, settings):
    image = sorted((root / "val2014").iterdir())[1]
    whole = image.read_bytes()
    image.write_bytes(b"\0" * len(whole))
    record = run(root, settings)
    assert (
        record["samples"]["errors"] == 6 and len(record["errors"]) == 6 and image.name in record["errors"][0]["error"]
    )
    rows = read_lines(_answers(record))
    assert rows[2]["text"] == "" and image.name in rows[2]["metadata"]["error"] and rows[4]["text"] == "Yes"
    image.write_bytes(whole)
    again = fakes.loaded()
    record = run(root, settings, again)
    assert sum(again.model.batches) == 6 and record["samples"]["errors"] == 0 and record["headline"]["value"] == 100


def test_a_batch_without_a_single_good_image(root, settings):
    for image in (root / "val2014").iterdir():
        image.write_bytes(b"no image")
    record = run(root, settings)
    assert record["samples"]["errors"] == 18 and record["timings"] == {}


def test_another_configuration_refuses_the_same_file(root, settings, tmp_path):
    named = Settings(**{**vars(settings), "answers_file": tmp_path / "mine.jsonl"})
    run(root, named)
    with pytest.raises(BadInput, match=r"method.options.keep: 128 -> 64"):
        run(root, named, method=fakes.method(64))
    anew = Settings(**{**vars(named), "restart": True})
    assert run(root, anew, method=fakes.method(64))["samples"]["reused"] == 0
    assert (tmp_path / "mine.jsonl.old1").exists()


def test_everything_that_decides_the_predictions_changes_the_run(root, settings):
    data = fakes.dataset(root)
    questions = data.benchmark.questions(root)

    def run_id(settings=settings, questions=questions, method=None, loaded=None):
        return plan(data, questions, loaded or fakes.loaded(), method or fakes.method(), settings).run_id

    bfloat = fakes.loaded()
    bfloat.model.dtype = torch.bfloat16
    others = [
        run_id(method=fakes.method(64)),
        run_id(questions=questions[:5]),
        run_id(settings=Settings(max_new_tokens=5)),
        run_id(settings=Settings(seed=1)),
        run_id(loaded=bfloat),
        run_id(loaded=fakes.LoadedModel(bfloat.model, bfloat.processor, "models/fake-7b", "other weights")),
    ]
    assert len({run_id(), *others}) == 7 and run_id() == run_id()


def test_limit_is_spread_over_the_splits(root, settings):
    record = run(root, Settings(**{**vars(settings), "limit": 6}), limit=6)
    assert record["samples"]["scored"] == 6 and record["samples"]["in_data_set"] == 18
    assert {m["group"] for m in record["metrics"]} == {"adversarial", "popular", "random"}


def test_exported_files_that_cannot_be_written_do_not_cost_the_run(root, settings, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("llava.eval.benchmarks.pope.Pope.export", refuse)
    record = run(root, settings)
    assert record["headline"]["value"] == 100 and record["exported_files"] == []


def _answers(record):
    return Path(record["answers_file"])


def test_videos_are_opened_by_the_processor_and_bad_ones_recorded(tmp_path):
    write_video(tmp_path, "mp4")
    (tmp_path / "mp4" / "video1.mp4").write_bytes(b"cut off")

    class Videos(FakeProcessor):
        family = "video_llava"

        def prompt(self, text, n_images=1, n_videos=0):
            assert (n_images, n_videos) == (0, 1)
            return text

        def open_video(self, path):
            if path.read_bytes() == b"cut off":
                raise BadInput(f"{path} is damaged")
            return path.name

        def __call__(self, prompts, images=None, videos=None):
            assert images is None and videos == [["video0.mp4"], ["video2.mp4"]]
            return super().__call__(prompts, [])

    questions = get("tgif_qa").questions(tmp_path)
    given = answer_batch(FakeModel(), Videos(lambda prompt: prompt[-2]), questions, 4)
    assert given.texts == ["0", "", "2"] and "damaged" in given.errors[1]
