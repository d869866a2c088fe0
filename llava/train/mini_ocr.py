"""Mini benchmarks about reading and open questions: OCRBench and MM-Vet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import questions as ask
from . import signs
from .mini_scenes import SEED, SMALL, save_image, scene_with_sign, wide_scene, write_json, write_lines
from .scenes import DIGITS, LETTERS, Scene

OCR_IMAGES_PER_TYPE = 12
FORMULAS = "HME100k"  # the data set whose spaces do not count; every other item says that it is ours
OWN = "signs"
MM_VET_IMAGES = 8
MM_VET_QUESTIONS = ("Describe the image.", "What is written on the sign?")


def _code(rng: np.random.Generator, alphabet: str) -> str:
    return ask.random_code(rng, int(rng.integers(2, 5)), alphabet)


def _sum(rng: np.random.Generator) -> str:
    return f"{rng.integers(10)}+{rng.integers(10)}"


def write_ocrbench(folder: Path, seed: int = SEED) -> int:
    """Write OCRBench: five of its ten types, one item for each image; returns the items' number."""
    rng = np.random.default_rng([seed, 11])
    items: list[dict] = []

    def add(kind: str, dataset: str, scene: Scene, question: str, answers: str | list[str]) -> None:
        path = f"{dataset}/{len(items):03d}.jpg"
        save_image(scene, folder / "OCRBench_Images" / path, SMALL)
        item = {"dataset_name": dataset, "id": len(items), "image_path": path, "question": question}
        items.append({**item, "answers": answers, "type": kind})

    for _ in range(OCR_IMAGES_PER_TYPE):
        scene = scene_with_sign(rng, _code(rng, LETTERS + DIGITS))
        add("Regular Text Recognition", OWN, scene, "what is written in the image?", signs.text_of(scene))
    for _ in range(OCR_IMAGES_PER_TYPE):
        scene = scene_with_sign(rng, _code(rng, DIGITS))
        add("Digit String Recognition", OWN, scene, "what is the number in the image?", signs.text_of(scene))
    for _ in range(OCR_IMAGES_PER_TYPE):
        scene = scene_with_sign(rng, _code(rng, LETTERS))
        add("Non-Semantic Text Recognition", OWN, scene, "what is written in the image?", signs.text_of(scene))
    for _ in range(OCR_IMAGES_PER_TYPE):
        scene = scene_with_sign(rng, _code(rng, LETTERS + DIGITS))
        text = signs.text_of(scene)
        add("Scene Text-centric VQA", OWN, scene, ask.pick(rng, signs.READ[2:]), [text, " ".join(text)])
    for _ in range(OCR_IMAGES_PER_TYPE):
        scene = scene_with_sign(rng, _sum(rng))
        answers = [signs.text_of(scene), signs.text_of(scene).replace("+", " + ")]
        add("Handwritten Mathematical Expression Recognition", FORMULAS, scene, signs.LATEX, answers)
    write_json(folder / "OCRBench" / "OCRBench.json", items)
    return len(items)


def write_mm_vet(folder: Path, seed: int = SEED) -> int:
    """Write MM-Vet: open questions, graded by a judge only; returns the questions' number."""
    rng = np.random.default_rng([seed, 12])
    rows: list[dict] = []
    for number in range(MM_VET_IMAGES):
        scene, image = wide_scene(rng, sign=1.0), f"v1_{number}.jpg"
        save_image(scene, folder / "images" / image, SMALL)
        for text in MM_VET_QUESTIONS[: 1 + bool(scene.sign)]:
            rows.append({"question_id": len(rows), "image": image, "text": text, "category": "conv"})
    write_lines(folder / "llava-mm-vet.jsonl", rows)
    return len(rows)
