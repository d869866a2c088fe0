"""`python -m llava.data convert`: parquet mirrors, archives and official annotations become sets that score."""

import io
import json
import zipfile

import pytest
from PIL import Image

from llava.data import placing, questions
from llava.data.__main__ import main
from llava.eval import benchmarks, data
from tests.eval.small_data import read_lines
from tests.eval.small_sets import ten, write

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def picture(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 1, 2)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


ANSWERS = [{"answer": a, "answer_id": n, "answer_confidence": "yes"} for n, a in enumerate(ten(yes=9, no=1), start=1)]
VQA = {"question_type": "is", "multiple_choice_answer": "yes", "answer_type": "yes/no", "question": "Is it?"}
OPTIONS = {f"choice_{letter}": letter for letter in "abcd"}
MMBENCH = {"hint": None, "A": "red", "B": "blue", "C": None, "D": None, "category": "c", "source": "s"}
MMBENCH |= {"L2-category": "l", "comment": "", "split": "dev"}
FRAMES = [picture(1), picture(2), picture(3)]

MIRRORS = {
    "gqa": {
        "questions": [
            {"id": "01", "imageId": "n1", "question": "Is it?", "answer": "yes", "isBalanced": True, "entailed": None},
        ],
        "images": [{"id": "n1", "image": picture()}],
    },
    "pope": {
        "test": [
            {"id": "1", "question_id": "1", "question": "Is there a dog in the image?", "answer": "yes"}
            | {"image_source": "COCO_val2014_000000000001", "image": picture(), "category": split}
            for split in ("adversarial", "popular", "random")
        ]
    },
    "mme": {
        "test": [
            {"question_id": "count/1.png", "image": picture(), "question": f"{q} Please answer yes or no."}
            | {"answer": a, "category": "count"}
            for q, a in (("Is it one?", "Yes"), ("Is it two?", "No"))
        ]
    },
    "textvqa": {
        "validation": [
            {"image_id": "aa", "question_id": 1, "question": "What?", "image": picture(), "answers": ten(yes=10)}
            | {"ocr_tokens": ["ACME", "330ml"]}
        ]
    },
    "vqav2": {
        "testdev-0": [{**VQA, "question_id": 5, "image_id": 7, "image": picture(), "answers": None}],
        "test-0": [{**VQA, "question_id": key, "image_id": 7, "image": picture(), "answers": None} for key in (4, 5)],
    },
    "vqav2_val": {"validation": [{**VQA, "question_id": 5, "image_id": 7, "image": picture(), "answers": ANSWERS}]},
    "vizwiz": {"test": [{"question_id": "VizWiz_test_00000000.jpg", "question": "What?", "image": picture()}]},
    "vizwiz_val": {
        "val": [
            {"question_id": "VizWiz_val_00000000.jpg", "question": "What?", "image": picture()}
            | {"answers": ten(yes=10), "category": "other"}
        ]
    },
    "scienceqa": {
        "test": [
            {"image": picture(), "question": "Which?", "choices": ["x", "y"], "answer": 0, "hint": "Look."},
            {"image": None, "question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": ""},
        ]
    },
    "mmbench": {
        "dev": [
            {**MMBENCH, "index": key, "question": "Which?", "answer": "A", "image": picture()} for key in (1, 1000001)
        ]
    },
    "mmbench_cn": {"dev": [{**MMBENCH, "index": 1, "question": "哪个?", "answer": "A", "image": picture()}]},
    "ocrbench": {
        "test": [
            {"dataset": "IIIT5K", "question": "what?", "question_type": "Regular Text Recognition"}
            | {"answer": ["HOTEL"], "image": picture()}
        ]
    },
    "seed_bench": {
        "test": [
            {**OPTIONS, "answer": "A", "data_id": "12_34", "data_type": "image", "question": "Which?"}
            | {"question_id": "101", "question_type_id": 1, "image": [picture()]},
            {**OPTIONS, "answer": "B", "data_id": "x.webm", "data_type": "video", "question": "Which?"}
            | {"question_id": "v7", "question_type_id": 10, "image": FRAMES},
        ]
    },
    "mm_vet": {"test": [{"question_id": "v1_0", "image": picture(), "question": "What?", "answer": "x"}]},
    "msvd_qa": {"test": [{"video_name": "v1", "question": "what?", "question_id": "1", "answer": "cook"}]},
}
"""Rows as the hub's mirrors have them: benchmark -> file -> rows."""

GOLD = {
    "gqa": ["Yes"],
    "pope": ["Yes"] * 3,
    "mme": ["Yes", "No"],
    "textvqa": ["yes"],
    "vqav2": ["yes"],
    "vqav2_val": ["yes"],
    "vizwiz": ["yes"],
    "vizwiz_val": ["yes"],
    "scienceqa": ["A"],
    "mmbench": ["A", "A"],
    "mmbench_cn": ["A"],
    "ocrbench": ["HOTEL"],
    "seed_bench": ["A", "B"],
    "mm_vet": ["x"],
    "msvd_qa": ["cook"],
}
BEST = {"mme": 200, "ocrbench": 1, "vqav2": None, "vizwiz": None, "mm_vet": None}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_mirror_becomes_a_set_that_can_be_asked_and_scored(name, tmp_path, capsys):
    benchmark = benchmarks.get(name)
    root = tmp_path / benchmark.folder
    paths = [table(tmp_path / f"{file}.parquet", rows) for file, rows in MIRRORS[name].items()]
    assert main(["convert", name, *map(str, paths), "--output", str(root)]) == 0
    asked = benchmark.questions(root)
    rows = [{"question_id": q.id, "prompt": q.text, "text": t} for q, t in zip(asked, GOLD[name], strict=True)]
    score = benchmark.score(root, rows)
    assert score.headline.value == BEST.get(name, 100)
    if name != "msvd_qa":  # the clips come as an archive
        assert data.missing(data.DataSet(benchmark, root, "full"), asked) == []
        assert "Still missing" not in capsys.readouterr().out
    if name in ("vqav2", "vizwiz", "mmbench", "mmbench_cn"):
        path = benchmark.export(root, rows, "run")[0]
        assert benchmark.validate_upload(root, path) in ([], ["none of the 1 questions of the split has an answer"])


def test_a_table_that_lacks_columns_or_is_damaged(tmp_path, capsys):
    path = table(tmp_path / "x.parquet", [{"question": "Is it?", "picture": 1}])
    assert main(["convert", "pope", str(path), "--output", str(tmp_path / "o")]) == 2
    assert "image_source; it has: question, picture" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-5])
    assert main(["convert", "pope", str(path), "--output", str(tmp_path / "o")]) == 2
    assert "not a complete parquet file" in capsys.readouterr().err


REBUILT = ["gqa", "pope", "scienceqa", "vizwiz", "vizwiz_val"]


@pytest.mark.parametrize("name", REBUILT)
def test_question_files_are_rebuilt_as_llava_ships_them(name, tmp_path):
    write(name, tmp_path)
    path = benchmarks.get(name).question_path(tmp_path)
    shipped = path.read_text()
    path.unlink()
    questions.REBUILD[name](tmp_path)
    if name == "scienceqa":
        # The small set's problems hold other option texts than its question file; the structure is what counts.
        old, new = json.loads(shipped), json.loads(path.read_text())
        assert [(item["id"], item.get("image")) for item in old] == [(item["id"], item.get("image")) for item in new]
        assert new[0]["conversations"][0]["value"].startswith("<image>\nWhich 1?\nA. choice 0\nB. choice 1")
    else:
        assert read_lines(path) == [json.loads(line) for line in shipped.splitlines()]


def test_official_vqa_questions_make_both_files(tmp_path):
    for split, ids in (("test-dev2015", [5]), ("test2015", [4, 5])):
        listed = [{"question_id": key, "image_id": 7, "question": "Is it?"} for key in ids]
        path = tmp_path / f"v2_OpenEnded_mscoco_{split}_questions.json"
        path.write_text(json.dumps({"questions": listed}))
    questions.vqav2(tmp_path)
    assert [row["question_id"] for row in read_lines(tmp_path / "llava_vqav2_mscoco_test2015.jsonl")] == [4, 5]
    row = read_lines(tmp_path / "llava_vqav2_mscoco_test-dev2015.jsonl")[0]
    assert row["image"] == "COCO_test2015_000000000007.jpg"


@pytest.mark.parametrize(
    ("name", "member", "place"),
    [
        ("pope", "eval/pope/llava_pope_test.jsonl", "llava_pope_test.jsonl"),
        ("pope", "POPE/output/coco/coco_pope_random.json", "coco/coco_pope_random.json"),
        ("pope", "val2014/COCO_val2014_000000000001.jpg", "val2014/COCO_val2014_000000000001.jpg"),
        ("pope", "train2014/x.jpg", None),
        ("gqa", "images/n1.jpg", "data/images/n1.jpg"),
        ("gqa", "questions1.2/testdev_balanced_questions.json", "data/testdev_balanced_questions.json"),
        ("textvqa", "train_images/a.jpg", "train_images/a.jpg"),
        ("vizwiz", "test/VizWiz_test_00000000.jpg", "test/VizWiz_test_00000000.jpg"),
        ("scienceqa", "test/1/image.png", "images/test/1/image.png"),
        ("mm_vet", "mm-vet/images/v1_0.png", "images/v1_0.png"),
        ("mme", "MME_Benchmark_release_version/count/1.txt", "MME_Benchmark_release_version/count/1.txt"),
        ("msrvtt_qa", "MSRVTT_Zero_Shot_QA/videos/all/video1.mp4", "videos/all/video1.mp4"),
        ("pope", "../../val2014/x.jpg", None),
        ("pope", "__MACOSX/val2014/x.jpg", None),
    ],
)
def test_where_files_of_archives_belong(name, member, place):
    assert placing.destination(name, member) == place


def test_an_archive_is_placed_and_the_question_file_rebuilt(tmp_path, capsys):
    write("pope", tmp_path / "download")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "download").rglob("*.*")):
            if path.name != "llava_pope_test.jsonl":
                file.write(path, f"anything/{path.relative_to(tmp_path / 'download')}")
        file.writestr("readme.md", "x")
    assert main(["convert", "pope", str(archive), "--output", str(tmp_path / "pope")]) == 0
    out = capsys.readouterr().out
    assert "Placed: 6 files" in out and "Rebuilt" in out and "Still missing" not in out
    old = (tmp_path / "download" / "llava_pope_test.jsonl").read_text()
    assert read_lines(tmp_path / "pope" / "llava_pope_test.jsonl") == [json.loads(line) for line in old.splitlines()]


def test_folders_are_copied_and_useless_or_damaged_sources_refused(tmp_path, capsys):
    write("gqa", tmp_path / "gqa download")
    assert main(["convert", "gqa", str(tmp_path / "gqa download"), "--output", str(tmp_path / "gqa")]) == 0
    assert benchmarks.get("gqa").questions(tmp_path / "gqa")
    capsys.readouterr()
    (tmp_path / "notes.txt").write_text("x")
    assert main(["convert", "gqa", str(tmp_path / "notes.txt"), "--output", str(tmp_path / "gqa")]) == 2
    assert "holds nothing that GQA needs" in capsys.readouterr().err
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 cut off")
    assert main(["convert", "gqa", str(tmp_path / "cut.zip"), "--output", str(tmp_path / "gqa")]) == 2
    assert "not a complete zip archive" in capsys.readouterr().err
