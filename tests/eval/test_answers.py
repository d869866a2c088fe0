"""The answers file: healed wherever it was cut off, continued by its own run only, never mixed or overwritten."""

import json

import pytest

from llava.errors import BadData, BadInput, MissingData
from llava.eval.answers import AnswersFile, answer_row, differences, read_answers, set_aside
from llava.eval.benchmarks.base import Question

CONFIGURATION = {"method": {"name": "dart", "options": {"keep": 128}}, "seed": 0}
QUESTIONS = [Question(n, f"{n}.jpg", f"Größe {n}?\nShort.", "", "default", f"{n}.jpg") for n in range(6)]


def opened(path, run_id="aaaa", configuration=CONFIGURATION, questions=QUESTIONS):
    return AnswersFile(path, run_id, configuration, questions)


def rows(places, text="é"):
    return [answer_row(QUESTIONS[place], f"{text}{place}", "model", f"id{place}") for place in places]


def write(path, places=range(6), batch=2):
    with opened(path) as answers:
        for first in range(len(answers.rows), len(places), batch):
            answers.append(rows(range(first, first + batch)), {"asked": batch})
    return path.read_bytes()


def test_rows_have_llavas_format(tmp_path):
    write(tmp_path / "a.jsonl")
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert first == {
        "question_id": 0,
        "prompt": "Größe 0?\nShort.",
        "text": "é0",
        "answer_id": "id0",
        "model_id": "model",
        "metadata": {},
    }


def test_cut_off_at_any_byte_it_continues_to_the_same_file(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = write(path)
    log = (tmp_path / "a.run.jsonl").read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        (tmp_path / "a.run.jsonl").write_bytes(log)
        with opened(path) as answers:
            done = len(answers.rows)
            assert done == whole[:size].count(b"\n")
            # What was measured for lost answers is dropped; what is left does not count any answer twice.
            assert all(place < done for m in answers.measures for place in m["places"])
            answers.append(rows(range(done, 6)), {"asked": 1})
        assert path.read_bytes() == whole


def test_a_log_cut_off_at_any_byte_loses_no_answer(tmp_path):
    path, log = tmp_path / "a.jsonl", tmp_path / "a.run.jsonl"
    whole = write(path)
    lines = log.read_bytes()
    header = lines.index(b"\n") + 1
    for size in range(header, len(lines)):
        log.write_bytes(lines[:size])
        with opened(path) as answers:
            assert answers.finished and len(answers.measures) == lines[header:size].count(b"\n")
        assert path.read_bytes() == whole


def test_another_configuration_is_refused_and_told_what_differs(tmp_path):
    whole = write(tmp_path / "a.jsonl")
    other = {"method": {"name": "dart", "options": {"keep": 64}}, "seed": 0}
    with pytest.raises(BadInput) as caught:
        opened(tmp_path / "a.jsonl", "bbbb", other)
    message = str(caught.value)
    assert "method.options.keep: 128 -> 64" in message and "seed" not in message
    assert "--answers-file" in message and "--restart" in message
    assert (tmp_path / "a.jsonl").read_bytes() == whole


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question_id": 0, "text": "mine"}')
    with pytest.raises(BadInput, match="was not written by this command"):
        opened(path)
    assert path.read_text() == '{"question_id": 0, "text": "mine"}'
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_run_without_an_answer_leaves_nothing(tmp_path):
    opened(tmp_path / "a.jsonl").close()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_cannot_write_one_file(tmp_path):
    pytest.importorskip("fcntl")
    with opened(tmp_path / "a.jsonl"), pytest.raises(BadInput, match="in use"):
        opened(tmp_path / "a.jsonl")
    opened(tmp_path / "a.jsonl").close()


def test_answers_to_other_questions_are_refused(tmp_path):
    write(tmp_path / "a.jsonl")
    with pytest.raises(BadData, match="answer 1: is about 0, expected 5"):
        opened(tmp_path / "a.jsonl", questions=QUESTIONS[::-1])


def test_a_damaged_line_in_the_middle_is_reported_not_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = write(path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\x00\x00\n", *lines[2:]]))
    with pytest.raises(BadData, match="line 2"):
        opened(path)


def test_failed_questions_can_be_replaced_in_place(tmp_path):
    path = tmp_path / "a.jsonl"
    with opened(path) as answers:
        answers.append([*rows([0]), answer_row(QUESTIONS[1], "", "model", "x", "damaged"), *rows([2])], {"asked": 2})
        assert answers.failed == [1]
        answers.replace({1: rows([1])[0]})
        assert answers.failed == []
    assert [row["text"] for row in read_answers(path)] == ["é0", "é1", "é2"]


def test_set_aside_never_overwrites(tmp_path):
    for _ in range(2):
        write(tmp_path / "a.jsonl")
        set_aside(tmp_path / "a.jsonl")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {f"a{end}.jsonl.old{n}" for end in ("", ".run") for n in (1, 2)}


def test_differences_name_nested_keys():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: None -> 4"]


def test_reading_a_file_from_elsewhere(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(MissingData, match="a.jsonl"):
        read_answers(path)
    path.write_bytes('{"question_id": 1, "text": "größe"}'.encode("latin-1"))
    with pytest.raises(BadData, match="UTF-8"):
        read_answers(path)
    path.write_text(
        '{"question_id": 1, "text": "Yes"}\n{"question_id": 2, "answer": "No"}\n[1]\n{"question_id": 3, "te'
    )
    with pytest.raises(BadData) as caught:
        read_answers(path)
    message = str(caught.value)
    assert "line 2: field 'text' is missing" in message and "line 3" in message and "line 4" in message
    path.write_text("\n")
    with pytest.raises(BadData, match="no answers"):
        read_answers(path)
    path.write_text('{"question_id": 1, "text": ""}')
    assert read_answers(path) == [{"question_id": 1, "text": ""}]
