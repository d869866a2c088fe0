"""`python -m llava.data`: what is present, partial, different or missing; sums; exit codes."""

import json

import pytest

from llava.data import status
from llava.data.__main__ import main
from llava.data.catalogue import CATALOGUE
from llava.eval import benchmarks
from tests.eval.small_data import SHARED
from tests.eval.small_sets import write


@pytest.fixture
def home(tmp_path):
    return tmp_path / "eval"


def put(home, name):
    write(name, home / benchmarks.get(name).folder)


def test_every_benchmark_is_in_the_catalogue_with_its_files():
    assert set(CATALOGUE) == set(benchmarks.names())
    for name, entry in CATALOGUE.items():
        benchmark = benchmarks.get(name)
        paths = {item.path.rstrip("/") for item in entry.items}
        wanted = [benchmark.question_path, benchmark.image_root]
        for path in [*(one(status.Path("/")) for one in wanted), *benchmark.label_files(status.Path("/"), [])]:
            relative = path.as_posix().lstrip("/")
            assert not relative or relative in paths or name in ("mmbench", "mmbench_cn"), (name, relative)
        assert all(item.source for item in entry.items) and entry.licence


def test_overview(home, capsys):
    put(home, "gqa")
    put(home, "pope")
    (home / "pope" / "coco" / "coco_pope_random.json").unlink()
    write("mme", home / "MME" / "mini")
    assert main(["--data", str(home)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "present" in lines["gqa"] and "4 of 5 parts" in lines["pope"]
    assert lines["mme"].split()[1:3] == ["-", "present"] and lines["vqav2"].split()[1:3] == ["-", "-"]


def test_details_say_where_to_get_what_is_missing(home, capsys):
    put(home, "pope")
    (home / "pope" / "coco" / "coco_pope_random.json").unlink()
    assert main(["pope", "--data", str(home)]) == 0
    out = capsys.readouterr().out
    assert f"missing   {home / 'pope' / 'coco' / 'coco_pope_random.json'}" in out and "e3e3926" in out
    assert "lmms-lab/POPE" in out


def test_verify_counts_rows_and_looks_for_images(home, capsys):
    put(home, "gqa")
    (home / "gqa" / "data" / "images" / "n3.jpg").unlink()
    assert main(["gqa", "--verify", "--data", str(home)]) == 2
    captured = capsys.readouterr()
    assert "6 rows, the official file has 12578" in captured.out and "n3.jpg" in captured.err
    (home / "gqa" / "llava_gqa_testdev_balanced.jsonl").write_text("{")
    assert main(["gqa", "--verify", "--data", str(home)]) == 2
    assert "wrong" in capsys.readouterr().out


def test_verify_of_all_looks_at_started_sets_only(home, capsys):
    home.mkdir()
    assert main(["--verify", "--data", str(home)]) == 0
    assert main(["gqa", "--verify", "--data", str(home)]) == 2


def test_sums_are_written_and_compared(home, capsys):
    put(home, "gqa")
    assert main(["gqa", "--write-sums", "--data", str(home)]) == 0
    assert (home / "gqa" / "gqa.SHA256SUMS").is_file()
    assert status.check_sums(benchmarks.get("gqa"), home / "gqa") == []
    path = home / "gqa" / "data" / "testdev_balanced_questions.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    changed = status.check_sums(benchmarks.get("gqa"), home / "gqa")
    assert len(changed) == 1 and str(path) in changed[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the official files are not beside the repository")
def test_official_files_are_recognised(tmp_path):
    (tmp_path / "coco").mkdir()
    for file in (SHARED / "data" / "pope").iterdir():
        (tmp_path / "coco" if file.name.startswith("coco") else tmp_path).joinpath(file.name).symlink_to(file)
    found = status.look(benchmarks.get("pope"), tmp_path, thorough=True)
    assert [one.detail.endswith("the official file") for one in found] == [True] * 4 + [False]
    (tmp_path / "coco" / "coco_pope_random.json").unlink()
    (tmp_path / "coco" / "coco_pope_random.json").write_text('{"label": "yes"}\n{"label": "no"}\n')
    assert status.look(benchmarks.get("pope"), tmp_path, thorough=True)[3].state == status.DIFFERENT


def test_mistakes(home, capsys):
    assert main(["popo", "--data", str(home)]) == 2
    message = capsys.readouterr().err
    assert "Did you mean 'pope'" in message and "is not a folder" in message
    assert main(["convert", "pope", "nothing.zip"]) == 2
    assert "nothing.zip" in capsys.readouterr().err
