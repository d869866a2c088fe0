"""Writes small data sets in the official formats and layouts: POPE, MME (both image layouts), TextVQA."""

import json
from pathlib import Path

from PIL import Image

SINGLE_WORD = "Answer the question using a single word or phrase."
SHARED = Path(__file__).resolve().parents[3] / "shared"


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (shade % 256, 40, 200)).save(path)


def write_pope(root: Path, pairs: int = 3) -> Path:
    """Three splits with `pairs` images, each with a question answered yes and one answered no."""
    questions = []
    for split, base in (("adversarial", 0), ("random", 10_000_000), ("popular", 20_000_000)):
        labels = []
        for number in range(pairs):
            image = f"COCO_val2014_{number:012d}.jpg"
            write_image(root / "val2014" / image, number)
            for thing, label in (("dog", "yes"), ("kite", "no")):
                labels.append({"image": image, "text": f"Is there a {thing} in the image?", "label": label})
        labels = [{"question_id": number, **row} for number, row in enumerate(labels, start=1)]
        write_lines(root / "coco" / f"coco_pope_{split}.json", labels)
        questions += [
            {
                "question_id": base + row["question_id"],
                "image": row["image"],
                "text": f"{row['text']}\n{SINGLE_WORD}",
                "category": split,
            }
            for row in labels
        ]
    write_lines(root / "llava_pope_test.jsonl", questions)
    return root


MME_CATEGORIES = {"count": False, "artwork": True, "code_reasoning": False}
"""Sub-task -> whether images and texts lie in two folders of their own."""


def write_mme(root: Path, images: int = 2, inner: str = "") -> Path:
    """Three sub-tasks; in `count` the official questions have two spaces before `Please`, as seven real ones do."""
    release = root / "MME_Benchmark_release_version" / inner
    questions = []
    for category, separate in MME_CATEGORIES.items():
        gap = "  " if category == "count" else " "
        for number in range(images):
            name = f"{number:04d}.png"
            folder = release / category
            write_image(folder / "images" / name if separate else folder / name, number)
            text = folder / "questions_answers_YN" / f"{number:04d}.txt" if separate else folder / f"{number:04d}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            asked = [f"Is it {category} {number}?", f"Is it something else than {number}?"]
            text.write_text(
                "".join(f"{q}{gap}Please answer yes or no.\t{a}\n" for q, a in zip(asked, ("Yes", "No"), strict=True))
            )
            path = f"{category}/images/{name}" if separate and number == 0 else f"{category}/{name}"
            questions += [
                {"question_id": path, "image": path, "text": f"{q}\n{SINGLE_WORD}", "category": category} for q in asked
            ]
    write_lines(root / "llava_mme.jsonl", questions)
    return root


TEXTVQA_ANSWERS = {
    ("aa11", "What brand is shown?"): ["nokia"] * 10,
    ("aa11", "How many Dogs?"): ["2"] * 3 + ["two dogs"] * 7,
    ("bb22", "What drink is it?"): ["coca cola"] * 2 + ["coke"] * 8,
    ("bb22", "Which number?"): ["1000"] + ["100"] * 9,
    ("cc33", "What brand is shown?"): ["dakota"] * 10,
}


def write_textvqa(root: Path) -> Path:
    questions, items = [], []
    for number, ((image, question), answers) in enumerate(TEXTVQA_ANSWERS.items()):
        write_image(root / "train_images" / f"{image}.jpg", number)
        hint = "ACME, 330ml" if number else ""
        questions.append(
            {
                "question_id": image,
                "image": f"{image}.jpg",
                "text": f"{question}\nReference OCR token: {hint}\n{SINGLE_WORD}",
                "category": "default",
            }
        )
        items.append({"image_id": image, "question_id": number, "question": question, "answers": answers})
    write_lines(root / "llava_textvqa_val_v051_ocr.jsonl", questions)
    (root / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": items}))
    return root


def answers_to(questions: list[dict], texts: list[str]) -> list[dict]:
    """Rows of an answers file."""
    return [
        {"question_id": q["question_id"], "prompt": q["text"], "text": text, "answer_id": "x", "metadata": {}}
        for q, text in zip(questions, texts, strict=True)
    ]
