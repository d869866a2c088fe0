"""What holds for every benchmark: gold answers give the maximum, and bad files are refused with a sentence."""

import json

import pytest

from llava.errors import BadData
from llava.eval import benchmarks, data
from llava.eval.__main__ import main
from tests.eval.small_data import write_lines
from tests.eval.small_sets import WRITERS, write

NAMES = benchmarks.names()
MAXIMUM = {"mme": 600, "ocrbench": 6}
"""Highest headline of the small sets; 100 % elsewhere."""
SERVER = {"vqav2", "vizwiz", "mm_vet"}
"""Without labels: only a server or a judge can score."""
UPLOADS = ("mmbench", "mmbench_cn", "vizwiz", "vqav2")


@pytest.fixture
def made(request, tmp_path):
    """Benchmark, folder of a small set, gold answers."""
    name = request.param
    root = tmp_path / benchmarks.get(name).folder
    return benchmarks.get(name), root, write(name, root)


every = pytest.mark.parametrize("made", NAMES, indirect=True)


def score(benchmark, root, rows, *options):
    """Exit code of the score command."""
    if isinstance(rows, bytes):
        (root.parent / "answers.jsonl").write_bytes(rows)
    else:
        write_lines(root.parent / "answers.jsonl", rows)
    return main(
        ["score", benchmark.name, "--answers-file", str(root.parent / "answers.jsonl"), "--data", str(root), *options]
    )


def test_every_benchmark_has_a_small_set():
    assert set(NAMES) == set(WRITERS)


@every
def test_gold_answers_give_the_maximum(made):
    benchmark, root, rows = made
    found = benchmark.score(root, rows)
    best = None if benchmark.name in SERVER else MAXIMUM.get(benchmark.name, 100)
    assert found.headline.value == (best if best is None else pytest.approx(best))
    assert found.samples == found.expected and not found.missing


@every
def test_questions_can_be_asked(made):
    benchmark, root, rows = made
    questions = benchmark.questions(root)
    asked = {str(question.id) for question in questions}
    assert asked <= {str(row["question_id"]) for row in rows} and all(question.prompt for question in questions)
    dataset = data.DataSet(benchmark, root, "mini")
    assert data.missing(dataset, questions) == data.missing(dataset, None) == []
    # What the runner would store is what the published answers files hold.
    prompts = {(str(row["question_id"]), row["prompt"]) for row in rows}
    assert {(str(question.id), question.text) for question in questions} <= prompts


@every
def test_missing_files_are_all_listed(made, tmp_path, capsys, monkeypatch):
    benchmark, root, rows = made
    monkeypatch.setattr("llava.model.builder.load", None)
    wanted = benchmark.score_files(root)
    for path in wanted:
        path.unlink() if path.is_file() else None
    gone = [path for path in wanted if not path.exists()]
    assert score(benchmark, root, rows) == 2
    message = capsys.readouterr().err
    assert gone and all(str(path) in message for path in gone)
    assert main([benchmark.name, "--data", str(root)]) == 2
    assert "Missing" in capsys.readouterr().err


@every
def test_missing_answers_are_named_unless_partial(made, capsys):
    benchmark, root, rows = made
    fewer = rows[:-2] if benchmark.name == "mme" else rows[1:]
    assert score(benchmark, root, fewer) == 2
    message = capsys.readouterr().err
    absent = rows[-1] if benchmark.name == "mme" else rows[0]
    assert "--partial" in message and str(absent["question_id"]) in message.partition("Without an answer:")[2]
    assert score(benchmark, root, fewer, "--partial") == 0


@every
def test_chunks_of_several_processes_are_read_in_order(made, capsys):
    benchmark, root, rows = made
    folder, half = root.parent / "chunks", len(rows) // 2
    write_lines(folder / "2_0.jsonl", rows[:half])
    write_lines(folder / "2_1.jsonl", rows[half:])
    words = ["score", benchmark.name, "--answers-file", str(folder), "--data", str(root)]
    assert main(words) == 0
    (folder / "2_1.jsonl").unlink()
    assert main(words) == 2 and "lacks 2_1.jsonl" in capsys.readouterr().err
    (folder / "4_0.jsonl").write_text("{}")
    assert main(words) == 2 and "chunks of 2 runs" in capsys.readouterr().err


@every
def test_a_question_answered_twice(made, capsys):
    benchmark, root, rows = made
    assert score(benchmark, root, [*rows, rows[0]]) == 2
    assert "more than once" in capsys.readouterr().err


@every
def test_empty_predictions_are_counted_and_wrong(made, capsys):
    benchmark, root, rows = made
    assert score(benchmark, root, [{**row, "text": ""} for row in rows]) == 0
    assert f"{len(rows)} of {len(rows)} answers are empty." in capsys.readouterr().out
    if benchmark.name not in (*SERVER, "pope"):  # to POPE everything but no is a yes
        assert benchmark.score(root, [{**row, "text": ""} for row in rows]).headline.value == 0


@every
def test_wrong_columns(made, capsys):
    benchmark, root, rows = made
    assert score(benchmark, root, [{"id": row["question_id"], "answer": row["text"]} for row in rows]) == 2
    message = capsys.readouterr().err
    assert "line 1" in message and "missing" in message


@every
def test_an_answers_file_that_is_no_utf8(made, capsys):
    benchmark, root, rows = made
    latin = "".join(json.dumps({**row, "text": "é"}, ensure_ascii=False) + "\n" for row in rows).encode("latin-1")
    assert score(benchmark, root, latin) == 2
    assert "not UTF-8" in capsys.readouterr().err


@every
def test_a_truncated_last_line(made, capsys):
    benchmark, root, rows = made
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert score(benchmark, root, whole[:-20]) == 2
    assert f"line {len(rows)}" in (message := capsys.readouterr().err) and "cut off" in message
    if benchmark.name != "mme":  # half a pair cannot be scored
        assert score(benchmark, root, whole[:-20], "--partial") == 0
        assert "1 damaged lines are left out" in capsys.readouterr().out


@every
def test_answers_to_another_benchmark(made, tmp_path, capsys):
    benchmark, root, _ = made
    same_questions = {"mmbench": "mmbench_cn", "mmbench_cn": "mmbench", "vqav2": "vqav2_val", "vqav2_val": "vqav2"}
    same_questions |= {"vizwiz": "vizwiz_val", "vizwiz_val": "vizwiz"}
    video = {"tgif_qa", "msvd_qa", "msrvtt_qa"}
    for other in NAMES:
        if other in (benchmark.name, same_questions.get(benchmark.name)) or {other, benchmark.name} <= video:
            continue
        rows = write(other, tmp_path / "other" / other)
        assert score(benchmark, root, rows, "--partial") == 2, other
        assert "Traceback" not in capsys.readouterr().err


@every
def test_label_and_question_files_that_are_damaged(made, capsys):
    benchmark, root, rows = made
    for path in benchmark.score_files(root):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"\xff\xfe" + whole, b"", b"[]", b'{"a": 1}\n'):
            path.write_bytes(damaged)
            assert score(benchmark, root, rows) == 2, (path, damaged[:20])
            message = capsys.readouterr().err
            assert path.name in message or "do not fit" in message or "labels" in message
        path.write_bytes(whole)


@every
def test_question_ids_that_stand_twice(made):
    benchmark, root, rows = made
    path = benchmark.question_path(root)
    if not benchmark.unique_ids:
        pytest.skip("its questions are known by id and text")
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[0]]))
    elif path.suffix == ".json":
        path.write_text(json.dumps([*json.loads(path.read_text()), json.loads(path.read_text())[0]]))
    else:
        path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(BadData, match="more than once"):
        benchmark.questions(root)


@pytest.mark.parametrize("made", UPLOADS, indirect=True)
def test_uploads_are_written_checked_and_refused_when_changed(made, capsys):
    benchmark, root, rows = made
    path = benchmark.export(root, rows, "run")[0]
    words = ["validate", benchmark.name, str(path), "--data", str(root)]
    assert main(words) == 0
    assert "is in order" in capsys.readouterr().out
    with pytest.raises(BadData, match="needs an answer to every"):
        benchmark.export(root, rows[1:], "run")
    path.write_bytes(b"[]" if path.suffix == ".json" else b"PK")
    assert main(words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_benchmarks_scored_here_have_no_upload(tmp_path, capsys):
    write("gqa", tmp_path)
    (tmp_path / "x.json").write_text("[]")
    assert main(["validate", "gqa", str(tmp_path / "x.json"), "--data", str(tmp_path)]) == 2
    assert "no upload file" in capsys.readouterr().err
