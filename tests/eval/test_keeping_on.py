"""What must not end a run: too little memory, a question that cannot be asked, answers that come out of order."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llava.errors import BadInput, ConfigurationError, LlavaError
from llava.eval import sizing
from llava.eval.batches import batches
from llava.eval.benchmarks.base import Question
from llava.eval.prefetch import opened_ahead
from llava.eval.processes import Processes
from llava.eval.progress import Progress, running_score
from llava.eval.runner import Interrupted, chunk_of, run_benchmark
from llava.eval.scoring import read_any_answers
from tests.eval import fakes
from tests.eval.fakes import FakeModel, FakeProcessor
from tests.eval.small_data import read_lines, write_image, write_pope


class Limited(FakeModel):
    """Has room for so many questions at once."""

    def __init__(self, room, error=None):
        super().__init__()
        self.room, self.lack = room, error or torch.OutOfMemoryError("CUDA out of memory.")

    def generate(self, input_ids, **options):
        if len(input_ids) > self.room:
            raise self.lack
        return super().generate(input_ids, **options)


def loaded(model, processor=None):
    return fakes.LoadedModel(model, processor or FakeProcessor(fakes.gold_pope), "models/fake-7b", "abc")


def run(root, settings, model=None):
    data = fakes.dataset(root)
    return run_benchmark(data, data.benchmark.questions(root), model or fakes.loaded(), fakes.method(), settings)


def rows(record):
    return [{**row, "answer_id": None} for row in read_lines(Path(record["answers_file"]))]


# --------------------------------------------------------------------------------------------- memory


def test_out_of_memory_halves_the_batch_and_goes_on(root, settings, tmp_path):
    whole = rows(run(root, replace(settings, folder=tmp_path / "other")))
    model = Limited(1)
    record = run(root, settings, loaded(model))
    assert rows(record) == whole and set(model.batches) == {1} and not record["errors"]
    said = []
    again = Limited(2)
    record = run(root, replace(settings, folder=tmp_path / "third", say=said.append), loaded(again))
    assert rows(record) == whole and set(again.batches) == {2}
    assert said == ["The device ran out of memory with 4 questions at once; going on with 2."]  # tried once only
    assert record["timings"]["batch_size"] == [2]


def test_no_room_for_a_single_question_ends_the_run_at_once(root, settings):
    with pytest.raises(LlavaError, match="--load-4bit"):
        run(root, settings, loaded(Limited(0)))
    assert not list(settings.folder.glob("*"))


def test_one_question_that_does_not_fit_is_recorded(root, settings):
    class Sometimes(Limited):
        def generate(self, input_ids, **options):
            if 9 in input_ids[:, -1].tolist() and self.batches:
                raise self.lack
            return super().generate(input_ids, **options)

    model = Sometimes(4)
    record = run(root, replace(settings, batch_size=1), loaded(model))
    assert len(record["errors"]) == 1 and "out of memory" in record["errors"][0]["error"]


def test_other_errors_of_the_device_end_the_run(root, settings):
    with pytest.raises(RuntimeError, match="device-side assert"):
        run(root, settings, loaded(Limited(0, RuntimeError("device-side assert triggered"))))


# --------------------------------------------------------------------------------------------- bad questions


class Picky(FakeProcessor):
    """Refuses one question."""

    error = BadInput("the image has an unusable shape")

    def __call__(self, prompts, images):
        if any(prompt.startswith("Is there a kite") for prompt in prompts) and len(self.prompts) < 30:
            raise self.error
        return super().__call__(prompts, images)


@pytest.mark.parametrize("error", [BadInput("of an unusable shape"), ValueError("of an unusable shape")])
def test_questions_that_the_processor_refuses_are_recorded(root, settings, error):
    processor = Picky(fakes.gold_pope)
    processor.error = error
    record = run(root, settings, loaded(FakeModel(), processor))
    texts = [row["text"] for row in rows(record)]
    assert len(record["errors"]) == 9 and texts[::2] == ["Yes"] * 9 and texts[1::2] == [""] * 9
    assert all("of an unusable shape" in failed["error"] for failed in record["errors"])


def test_what_concerns_the_whole_run_ends_it(root, settings):
    processor = Picky(fakes.gold_pope)
    processor.error = ConfigurationError("keep=9 is too much")
    with pytest.raises(ConfigurationError):
        run(root, settings, loaded(FakeModel(), processor))


def test_the_right_batch_size_is_found(root, settings, tmp_path):
    class Clocked(FakeModel):
        """As many questions a second as it has rows, up to eight."""

        def generate(self, input_ids, **options):
            clock[0] += max(1.0, len(input_ids) / 8)
            return super().generate(input_ids, **options)

    clock = [0.0]
    model = Clocked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizing.time, "perf_counter", lambda: clock[0])
        patch.setattr(sizing, "used_memory", lambda device: 0)
        one = write_pope(tmp_path / "one", pairs=32)
        found = run(one, replace(settings, batch_size="auto", folder=tmp_path / "auto"), loaded(model))
    assert model.batches[:8] == [4, 4, 4, 4, 8, 8, 16, 16] and set(model.batches[8:]) == {8}  # 16 gained nothing
    assert [row["text"] for row in rows(found)] == ["Yes", "No"] * 96


def test_a_batch_that_memory_has_no_room_for_is_not_tried():
    size = sizing.BatchSize("auto", torch.device("cpu"))
    size._free, size._before = 100, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizing, "used_memory", lambda device: 50)
        for _ in range(4):
            size.begin()
            size.done(4, warm=True)
    assert size.size == 4 and not size.grows


# --------------------------------------------------------------------------------------------- order


def question(place, length, image="x.png"):
    return Question(place, Path(image), "", "w" * length, "default", image)


def test_batches_are_of_like_length_and_hold_every_question_once():
    questions = [question(place, 40 * (place * 7 % 11)) for place in range(50)]
    processor = FakeProcessor(None)
    planned = list(batches(questions, 4, processor))
    assert sorted(place for batch in planned for place in batch) == list(range(50))
    spans = [max(p * 7 % 11 for p in batch) - min(p * 7 % 11 for p in batch) for batch in planned]
    assert max(spans) <= 1 and all(batch == sorted(batch) for batch in planned)
    assert list(batches(questions, 1, processor)) == [[place] for place in range(50)]


def test_questions_of_an_image_are_asked_together_wherever_they_stand():
    questions = [question(place, 4, f"{place % 3}.png") for place in range(12)]
    planned = list(batches(questions, 4, FakeProcessor(None)))
    assert planned == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert [batch[0] % 3 for batch in batches(questions, 1, FakeProcessor(None))] == [0] * 4 + [1] * 4 + [2] * 4


def test_an_image_is_opened_once_for_all_its_questions(root):
    questions = fakes.dataset(root).benchmark.questions(root)
    looked = []
    processor = FakeProcessor(None)
    processor.look_at = looked.append
    found = [opened for _, opened in opened_ahead(processor, questions, [[0, 1, 6], [7, 12, 2]])]
    images = [found[0][0], found[0][1], found[0][6], found[1][7], found[1][12]]
    assert all(image is images[0] for image in images) and found[1][2] is not images[0]
    assert sorted(map(id, looked)) == sorted({id(images[0]), id(found[1][2])})


def test_batches_know_how_many_tokens_an_image_becomes(tmp_path):
    class Sized(FakeProcessor):
        lengths_vary = True

        def visual_length(self, size):
            return size[0] * size[1]

    write_image(tmp_path / "small.png")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    names = ["damaged.png", "small.png", "absent.png", "small.png"]
    questions = [question(place, 4, str(tmp_path / name)) for place, name in enumerate(names)]
    assert list(batches(questions, 2, Sized(None))) == [[1, 3], [0, 2]]


def test_images_are_opened_in_the_background_in_order(root):
    data = fakes.dataset(root)
    questions = data.benchmark.questions(root)
    for image in (root / "val2014").iterdir():
        image.write_bytes(b"no image") if image.name.endswith("1.jpg") else None
    found = dict(
        pair for _, opened in opened_ahead(FakeProcessor(None), questions, [[5, 1], [2]]) for pair in opened.items()
    )
    assert list(found) == [5, 1, 2]
    assert [isinstance(found[place], Exception) for place in (5, 1, 2)] == [False, False, True]


def test_answers_out_of_order_wait_for_their_turn(root, settings):
    with pytest.raises(Interrupted, match="8 of 18 answers are kept"):
        run(root, settings, fakes.loaded(fail_at=2, error=KeyboardInterrupt()))
    (part,) = settings.folder.glob("*.part0.jsonl")
    # The six questions of an image, two in each split, are asked together, the longest first: 1, 7, 13, 0, 6, 12, 3, 9.
    assert [line["place"] for line in read_lines(part)[1:] if "place" in line] == [7, 13, 3, 6, 9, 12]
    assert len(read_lines(part.with_name(part.name.replace(".part0", "")))) == 2
    run(root, settings)
    assert not list(settings.folder.glob("*.part*"))


# --------------------------------------------------------------------------------------------- several at once


@pytest.mark.parametrize(("count", "sizes"), [(18, [5, 5, 5, 3]), (4, [1, 1, 1, 1]), (5, [2, 2, 1, 0])])
def test_chunks_are_llavas(count, sizes):
    parts = [chunk_of(range(count), 4, index) for index in range(4)]
    assert [len(part) for part in parts] == sizes and [n for part in parts for n in part] == list(range(count))


def test_chunks_are_put_together_by_score(root, settings, tmp_path):
    whole = rows(run(root, settings))
    for index in (2, 0, 1, 3):
        chunk = replace(settings, folder=tmp_path / "chunks", chunks=(4, index))
        last = run(root, chunk)
    folder = Path(last["answers_file"]).parent
    assert {path.name for path in folder.glob("?_?.jsonl")} == {f"4_{index}.jsonl" for index in range(4)}
    merged = read_any_answers(fakes.dataset(root).benchmark, folder)
    assert [{**row, "answer_id": None} for row in merged] == whole
    assert not list((tmp_path / "chunks").rglob("*.json"))  # half a benchmark is no result


def together(count, root, settings, models):
    """Run as so many processes, played by threads."""
    barrier, board, records, errors = threading.Barrier(count, timeout=20), {}, {}, []

    def work(number):
        def gather(own):
            board[number] = own
            barrier.wait()
            everybody = [board[n] for n in range(count)]
            barrier.wait()
            return everybody

        try:
            records[number] = run(root, replace(settings, team=Processes(number, count, None, gather)), models[number])
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return records, [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]


def test_several_processes_share_the_batches(root, settings, tmp_path):
    alone = run(root, replace(settings, folder=tmp_path / "alone"))
    models = [fakes.loaded() for _ in range(3)]
    records, errors = together(3, root, settings, models)
    assert not errors and records[1] is records[2] is None
    assert rows(records[0]) == rows(alone) and records[0]["metrics"] == alone["metrics"]
    assert records[0]["accounting"] == alone["accounting"] and records[0]["timings"]["samples"] <= 18
    assert sorted(sum((one.model.batches for one in models), [])) == [2, 4, 4, 4, 4]
    assert all(one.model.batches for one in models) and not list(settings.folder.glob("*.part*"))
    records, errors = together(2, root, settings, models[:2])
    assert records[0]["samples"]["reused"] == 18


def test_what_the_processes_answered_before_a_stop_is_not_asked_again(root, settings, tmp_path):
    whole = rows(run(root, replace(settings, folder=tmp_path / "alone")))
    models = [fakes.loaded(), fakes.loaded(fail_at=1, error=RuntimeError("stopped"))]
    _, errors = together(2, root, settings, models)
    assert [str(error) for error in errors] == ["stopped"]
    again = fakes.loaded()
    record = run(root, settings, again)  # alone now
    assert rows(record) == whole and not list(settings.folder.glob("*.part*"))
    assert sum(again.model.batches) + sum(sum(one.model.batches) for one in models) == 18


# --------------------------------------------------------------------------------------------- progress


def test_the_bar_shows_the_score_so_far(root, capsys):
    data = fakes.dataset(root)
    questions = data.benchmark.questions(root)
    answers = [{"question_id": q.id, "prompt": q.text, "text": fakes.gold_pope(q.prompt)} for q in questions]
    ticks = iter([0, 1, 5, 5, 6, 6])
    with Progress(data, "fake", 18, 0, clock=lambda: next(ticks)) as progress:
        progress.update(6, lambda: pytest.fail("too early"))
        progress.update(6, lambda: answers[:12])
        progress.update(6, lambda: pytest.fail("too soon after the last"))
    shown = capsys.readouterr().err
    assert "f1 100.00 %" in shown and "18/18" in shown
    assert running_score(data, [{"question_id": "nobody's", "prompt": "", "text": ""}]) == ""


def test_progress_of_a_run_is_on_standard_error(root, settings, capsys):
    run(root, replace(settings, progress=True))
    assert "18/18" in capsys.readouterr().err
