"""Decoding and the parts of a question: tokens, cache bytes, sums. No time is judged."""

import json

import pytest

from llava.bench import __main__ as command
from llava.bench import decode, parts
from llava.bench.options import ModelOptions, PromptOptions
from llava.bench.subject import build
from llava.reduction import registry
from tests.bench.subjects import subject
from tests.eval.small_data import write_pope
from tests.model.llava_folder import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return write_checkpoint(folder / "tiny"), write_pope(folder / "pope")


def methods(keep):
    return {name: registry.create(name, **({} if name == "none" else {"keep": keep})) for name in ("none", "fastv")}


def test_every_token_is_timed_and_the_cache_grows_by_it():
    none, fastv = decode.measure(subject(49), methods(9), new_tokens=4, repeats=2, warmup=0).rows
    assert none["new_tokens"] == fastv["new_tokens"] == 4
    assert fastv["step_seconds"]["repeats"] == 2 * 3 and fastv["token_seconds"]["repeats"] == 2
    # keys and values of 32 float32 numbers; prompts of 56 columns, of which two of four layers keep 16
    assert none["cache_bytes"] == 4 * 56 * 2 * 32 * 4 and fastv["cache_bytes"] == (2 * 56 + 2 * 16) * 2 * 32 * 4
    assert none["cache_bytes_at_end"] - none["cache_bytes"] == 3 * 4 * 2 * 32 * 4  # the last token is not read again
    assert none["break_even_new_tokens"] is None and fastv["break_even_new_tokens"]["wins"]


def test_bytes_that_a_token_reads():
    measured = subject(49)
    width, ffn, vocabulary = 32, 48, measured.model.config.text_config.vocab_size
    layer = 4 * width * width + 3 * width * ffn + 2 * width  # projections, FFN, two norms
    assert decode.decoder_bytes(measured) == 4 * (4 * layer + width * vocabulary)


def test_the_command_on_a_checkpoint(checkpoint, tmp_path, capsys):
    folder, pope = checkpoint
    path = tmp_path / "decode.json"
    words = f"decode --model-path {folder} --data {pope} --methods divprune --keep 2 --new-tokens 3 --batch 2"
    more = f"--repeats 1 --warmup 0 --device cpu --output {path}"
    assert command.main([*words.split(), *more.split()]) == 0
    raw = json.loads(path.read_text())
    assert (
        raw["subject"]["benchmark"] == "pope" and raw["subject"]["split"] == "custom" and raw["subject"]["batch"] == 2
    )
    assert [row["final"] for row in raw["rows"]] == [[4, 4], [2, 2]]
    assert "ms per token" in capsys.readouterr().out


def test_more_prompts_than_questions(checkpoint, capsys):
    folder, pope = checkpoint
    words = f"prefill --model-path {folder} --data {pope} --methods divprune --keep 2 --batch 99 --device cpu"
    assert command.main(words.split()) == 2
    assert "has 18 questions only" in capsys.readouterr().err


def test_missing_checkpoints_and_data(checkpoint, tmp_path, capsys):
    folder, pope = checkpoint
    assert command.main(["decode", "--model-path", str(tmp_path / "nowhere"), "--data", str(pope)]) == 2
    (tmp_path / "empty").mkdir()
    assert command.main(["decode", "--model-path", str(folder), "--data", str(tmp_path / "empty")]) == 2
    assert "Missing data" in capsys.readouterr().err
    assert command.main(["decode", "--new-tokens", "1", "--methods", "dat"]) == 2
    assert "2 mistakes" in capsys.readouterr().err


def test_the_parts_of_a_question_add_up(checkpoint):
    folder, pope = checkpoint
    model = ModelOptions(model_path=str(folder), device="cpu")
    measured = build(model, PromptOptions(data=str(pope)), n_questions=3)
    assert len(measured.questions) == 3
    rows = parts.measure(measured, methods(2), 1, new_tokens=2, repeats=1, warmup=0).rows
    for row in rows:
        one = {part: row[f"{part}_seconds"]["median"] for part in (*parts.PARTS, "first_token", "total")}
        assert one["vision"] + one["language"] + one["other"] == pytest.approx(one["first_token"])
        assert one["preprocess"] + one["first_token"] + one["decode"] <= one["total"]
        assert row["new_tokens"] == 2
    assert rows[1]["selection_seconds"]["median"] > 0 and rows[1]["final"] == [2]


def test_every_round_asks_the_next_question(checkpoint, monkeypatch):
    folder, pope = checkpoint
    measured = build(ModelOptions(model_path=str(folder), device="cpu"), PromptOptions(data=str(pope)), n_questions=2)
    asked = []
    original = parts._answer

    def answer(subject, pruning, clock, questions, new_tokens):
        asked.append((pruning.method.name, questions[0].id))
        return original(subject, pruning, clock, questions, new_tokens)

    monkeypatch.setattr(parts, "_answer", answer)
    parts.measure(measured, methods(2), 1, new_tokens=1, repeats=2, warmup=1)
    first, second = (question.id for question in measured.questions)
    ids = [first, *(first, second, first)]  # the trial; three rounds, of two questions
    assert [id for name, id in asked if name == "none"] == ids == [id for name, id in asked if name == "fastv"]


def test_random_weights_have_no_preprocessing():
    none, _ = parts.measure(subject(16), methods(4), 1, new_tokens=2, repeats=1, warmup=0).rows
    assert none["preprocess_seconds"] is None and none["decode_seconds"]["median"] > 0
    assert parts.lines([none])[2].split()[2] == "-"
