"""LLaVA's question files rebuilt from the official annotations, for those who have no `eval.zip`.

Every function takes a benchmark's folder, reads the official files in it and writes the question file beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava.errors import BadInput
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import OPTION_LETTER, SINGLE_WORD
from llava.eval.benchmarks.mme import YES_OR_NO, read_gold

POPE_OFFSETS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
"""Added to a label's number to make the question id, in the order of LLaVA's file."""
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
LETTERS = "ABCDE"


def line(question_id: Any, image: str, text: str, category: str = "default") -> dict[str, Any]:
    """Return one row of a question file."""
    return {"question_id": question_id, "image": image, "text": text, "category": category}


def gqa(root: Path) -> Path:
    """Rebuild GQA's file from `data/testdev_balanced_questions.json`."""
    path = root / "data" / "testdev_balanced_questions.json"
    gold = files.read_json(path, dict)
    files.checked_items(gold.items(), path, {"question": str, "imageId": str})
    rows = (line(key, f"{item['imageId']}.jpg", f"{item['question']}\n{SINGLE_WORD}") for key, item in gold.items())
    return files.write_rows(root / "llava_gqa_testdev_balanced.jsonl", rows)


def pope(root: Path) -> Path:
    """Rebuild POPE's file from the three label files."""
    rows = []
    for split, offset in POPE_OFFSETS.items():
        labels = files.read_rows(root / "coco" / f"coco_pope_{split}.json", {"image": str, "text": str})
        rows += [
            line(offset + number, label["image"], f"{label['text']}\n{SINGLE_WORD}", split)
            for number, label in enumerate(labels, start=1)
        ]
    return files.write_rows(root / "llava_pope_test.jsonl", rows)


def mme(root: Path) -> Path:
    """Rebuild MME's file from the text files beside the images."""
    release = root / "MME_Benchmark_release_version"
    base = release / "MME_Benchmark" if (release / "MME_Benchmark").is_dir() else release
    files.require([base])
    rows = []
    for gold in sorted(base.glob("*/**/*.txt")):
        folder = gold.parent.parent / "images" if gold.parent.name == "questions_answers_YN" else gold.parent
        image = next((file for file in sorted(folder.glob(f"{gold.stem}.*")) if file.suffix != ".txt"), None)
        if image is None:
            raise BadInput(f"{gold} has no image {folder / gold.stem}.*")
        name = image.relative_to(base).as_posix()
        for question in read_gold(gold):
            asked = question.replace(YES_OR_NO, "").strip()
            rows.append(line(name, name, f"{asked}\n{SINGLE_WORD}", name.split("/")[0]))
    return files.write_rows(root / "llava_mme.jsonl", rows)


def _vqav2(root: Path, split: str, folder: str, source: str) -> Path:
    path = root / source
    content = files.read_json(path, dict)
    files.checked_items([("the file", content)], path, {"questions": list})
    names = (f"question {number}" for number in range(1, len(content["questions"]) + 1))
    required = {"question_id": int, "image_id": int, "question": str}
    files.checked_items(zip(names, content["questions"], strict=True), path, required)
    rows = (
        line(
            item["question_id"],
            f"COCO_{folder}_{item['image_id']:012d}.jpg",
            f"{item['question']}\n{SINGLE_WORD}",
        )
        for item in content["questions"]
    )
    return files.write_rows(root / f"llava_vqav2_mscoco_{split}.jsonl", rows)


def vqav2(root: Path) -> Path:
    """Rebuild both VQAv2 files from the official test-dev and test questions; return the one that is answered."""
    _vqav2(root, "test2015", "test2015", "v2_OpenEnded_mscoco_test2015_questions.json")
    return _vqav2(root, "test-dev2015", "test2015", "v2_OpenEnded_mscoco_test-dev2015_questions.json")


def vqav2_val(root: Path) -> Path:
    """Make VQAv2's val file, which LLaVA does not ship, from the official questions."""
    return _vqav2(root, "val2014", "val2014", "v2_OpenEnded_mscoco_val2014_questions.json")


def _vizwiz(root: Path, split: str) -> Path:
    path = root / f"{split}.json"
    items = files.read_json(path, list)
    names = (f"item {number}" for number in range(1, len(items) + 1))
    files.checked_items(zip(names, items, strict=True), path, {"image": str, "question": str})
    rows = (
        line(number, item["image"], f"{item['question']}\n{UNANSWERABLE}\n{SINGLE_WORD}")
        for number, item in enumerate(items)
    )
    return files.write_rows(root / f"llava_{split}.jsonl", rows)


def vizwiz(root: Path) -> Path:
    """Rebuild VizWiz's test file from `test.json`."""
    return _vizwiz(root, "test")


def vizwiz_val(root: Path) -> Path:
    """Make VizWiz's val file, which LLaVA does not ship, from `val.json`."""
    return _vizwiz(root, "val")


def scienceqa(root: Path) -> Path:
    """Rebuild ScienceQA's test file (context, question, options) from `problems.json` and `pid_splits.json`."""
    problems = files.read_json(root / "problems.json", dict)
    ids = files.read_json(root / "pid_splits.json", dict).get("test", [])
    items = []
    for key in map(str, ids):
        problem = problems[key]
        hint = [f"Context: {problem['hint']}"] if problem.get("hint") else []
        options = [f"{x}. {text}" for x, text in zip(LETTERS, problem["choices"], strict=False)]
        text = "\n".join([*hint, problem["question"], *options])
        turns = [
            {"from": "human", "value": f"<image>\n{text}" if problem.get("image") else text},
            {"from": "gpt", "value": LETTERS[problem["answer"]]},
        ]
        image = {"image": f"{key}/{problem['image']}"} if problem.get("image") else {}
        items.append({"id": key, **image, "conversations": turns})
    return files.write_json(root / "llava_test_CQM-A.json", items, indent=1)


def seed_bench(root: Path) -> Path:
    """Rebuild SEED-Bench's file from `SEED-Bench.json`."""
    content = files.read_json(root / "SEED-Bench.json", dict)
    rows = []
    for item in content["questions"]:
        options = [f"{letter}. {item[f'choice_{letter.lower()}']}" for letter in "ABCD"]
        text = "\n".join([item["question"], *options, OPTION_LETTER])
        key, kind = str(item["question_id"]), item["question_type_id"]
        video = item["data_type"] == "video"
        image = f"SEED-Bench-video-image/{kind}_{key}.png" if video else f"SEED-Bench-image/{item['data_id']}"
        rows.append(line(int(key) if key.isdigit() else key, image, text, str(kind)))
    return files.write_rows(root / "llava-seed-bench.jsonl", rows)


def mm_vet(root: Path) -> Path:
    """Rebuild MM-Vet's file from `mm-vet.json`."""
    content = files.read_json(root / "mm-vet.json", dict)
    rows = (
        line(int(key.removeprefix("v1_")), item["imagename"], item["question"], "conv") for key, item in content.items()
    )
    return files.write_rows(root / "llava-mm-vet.jsonl", rows)


REBUILD: dict[str, Callable[[Path], Path]] = {
    "gqa": gqa,
    "pope": pope,
    "mme": mme,
    "vqav2": vqav2,
    "vqav2_val": vqav2_val,
    "vizwiz": vizwiz,
    "vizwiz_val": vizwiz_val,
    "scienceqa": scienceqa,
    "seed_bench": seed_bench,
    "mm_vet": mm_vet,
}
"""Benchmark -> how its question file is rebuilt; TextVQA's OCR hints, MMBench, OCRBench and the videos need none."""
