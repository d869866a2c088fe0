"""Mini benchmarks: official formats, balanced, the same every time."""

import json

import pytest
from PIL import Image

from llava.train import mini


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    mini.write_all(folder, only=["pope", "MME", "textvqa"])
    return folder


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pope_has_three_balanced_splits_of_at_least_300(root):
    folder = root / "pope" / "mini"
    questions = rows(folder / "llava_pope_test.jsonl")
    for split in ("adversarial", "popular", "random"):
        labels = rows(folder / "coco" / f"coco_pope_{split}.json")
        assert len(labels) >= 300
        assert sum(r["label"] == "yes" for r in labels) == len(labels) // 2
        mine = [q for q in questions if q["category"] == split]
        assert [q["text"].split("\n")[0] for q in mine] == [r["text"] for r in labels]
        asked = [(r["image"], r["text"]) for r in labels]
        assert len(set(asked)) == len(asked)
    assert len({q["question_id"] for q in questions}) == len(questions)
    assert all((folder / "val2014" / q["image"]).exists() for q in questions)


def test_mme_pairs_ask_yes_first(root):
    folder = root / "MME" / "mini"
    questions = rows(folder / "llava_mme.jsonl")
    assert len({q["category"] for q in questions}) >= 8
    for first, second in zip(questions[::2], questions[1::2], strict=False):
        assert first["image"] == second["image"] and first["text"] != second["text"]
        image = folder / "MME_Benchmark_release_version" / first["image"]
        assert image.exists()
        text = image.with_suffix(".txt")
        if not text.exists():
            text = image.parent.parent / "questions_answers_YN" / text.name
        truth = [line.split("\t") for line in text.read_text().splitlines()]
        assert [answer for _, answer in truth] == ["Yes", "No"]
        assert truth[0][0] == first["text"].split("\n")[0] + " Please answer yes or no."


def test_textvqa_has_ten_answers_and_unique_questions(root):
    folder = root / "textvqa" / "mini"
    data = json.loads((folder / "TextVQA_0.5.1_val.json").read_text())["data"]
    assert all(len(row["answers"]) == 10 for row in data)
    keys = [(row["image_id"], row["question"].lower()) for row in data]
    assert len(set(keys)) == len(keys)
    for q, row in zip(rows(folder / "llava_textvqa_val_v051_ocr.jsonl"), data, strict=True):
        lines = q["text"].split("\n")
        assert q["question_id"] == row["image_id"] and len(lines) == 3 and lines[1] == "Reference OCR token: "


def test_images_are_small_and_whole(root):
    files = list(root.rglob("*.jpg"))
    assert sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) < 12e6
    for file in files[::20]:
        assert Image.open(file).convert("RGB").size == (336, 336)


def test_the_committed_sets_are_what_the_generator_makes(root):
    """Text files to the letter (image encoders differ between Pillow versions)."""
    committed = mini.Path(mini.__file__).parents[2] / "playground" / "data" / "eval"
    if not committed.exists():
        pytest.skip("no playground folder beside the package")
    for file in root.rglob("*.json*"):
        assert (committed / file.relative_to(root)).read_text() == file.read_text(), file.name
