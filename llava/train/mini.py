"""Mini benchmarks in the official formats from held-out scenes of a fixed seed: POPE, MME, TextVQA, and the others."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from . import questions as ask
from .examples import names_with_count, random_name
from .mini_letters import write_mmbench, write_mmbench_cn, write_scienceqa, write_seed_bench
from .mini_ocr import write_mm_vet, write_ocrbench
from .mini_scenes import LEVEL, SEED, free_scene, make_scene, save_image, write_lines
from .mini_short import write_gqa, write_vizwiz, write_vqav2
from .mini_video import write_msrvtt_qa, write_msvd_qa, write_tgif_qa
from .nano import IMAGE_SIZE
from .scenes import COLOR_NAMES, SHAPES, Scene

POPE_IMAGES, POPE_PAIRS = 56, 3
MME_IMAGES = 20
TEXTVQA_IMAGES = 100


def write_pope(folder: Path, seed: int = SEED) -> int:
    """Write POPE: for each image and split three objects that are there and three that are not; returns their number.

    Negatives of the splits as in POPE: any absent object; the objects most frequent over all images; those that share
    colour or shape with what is there.
    """
    rng = np.random.default_rng([seed, 1])
    scenes: list[Scene] = []
    while len(scenes) < POPE_IMAGES:
        scene = free_scene(rng, fewest=4)
        if len({t.name for t in scene.things}) >= POPE_PAIRS:
            scenes.append(scene)
    common = [name for name, _ in Counter(t.name for s in scenes for t in s.things).most_common()]
    images = [f"COCO_val2014_{number:012d}.jpg" for number in range(1, len(scenes) + 1)]
    for scene, image in zip(scenes, images, strict=False):
        save_image(scene, folder / "val2014" / image)
    questions = []
    for split, base in (("adversarial", 0), ("random", 10_000_000), ("popular", 20_000_000)):
        labels = []
        for scene, image in zip(scenes, images, strict=False):
            present = sorted({t.name for t in scene.things})
            yes = [present[i] for i in rng.permutation(len(present))[:POPE_PAIRS]]
            for name, label in zip(yes, ["yes"] * POPE_PAIRS, strict=False):
                labels.append((image, name, label))
                labels.append((image, _negative(split, scene, common, rng, labels), "no"))
        rows: list[dict] = [
            {"question_id": n, "image": image, "text": f"Is there {ask.article(name)} in the image?", "label": label}
            for n, (image, name, label) in enumerate(labels, start=1)
        ]
        write_lines(folder / "coco" / f"coco_pope_{split}.json", rows)
        questions += [
            {
                "question_id": base + r["question_id"],
                "image": r["image"],
                "text": r["text"] + ask.SHORT,
                "category": split,
            }
            for r in rows
        ]
    write_lines(folder / "llava_pope_test.jsonl", questions)
    return len(questions)


def _negative(split: str, scene: Scene, common: list[str], rng: np.random.Generator, labels: list) -> str:
    """An absent object's name that was not asked yet about the image of the last label."""
    asked = {name for image, name, _ in labels if image == labels[-1][0]}
    present = {t.name for t in scene.things}
    if split == "popular":
        return next(name for name in common if name not in present | asked)
    while True:
        name = ask.absent_name(scene, rng, hard=split == "adversarial")
        if name not in asked:
            return name


Pair = tuple[Scene, str, str]  # scene, question answered yes, question answered no


def _existence(rng: np.random.Generator) -> Pair | None:
    scene = free_scene(rng)
    name = scene.things[int(rng.integers(len(scene.things)))].name
    no = ask.absent_name(scene, rng, hard=True)
    return scene, f"Is there {ask.article(name)} in the image?", f"Is there {ask.article(no)} in the image?"


def _count(rng: np.random.Generator) -> Pair | None:
    target = (COLOR_NAMES + SHAPES)[int(rng.integers(len(COLOR_NAMES) + len(SHAPES)))]
    count = int(rng.integers(1, 5))
    scene = make_scene(rng, names_with_count(rng, target, count, int(rng.integers(count, LEVEL.things + 1))))
    return _yes_and_no(scene, lambda: ask.counting(scene, rng, target))


def _position(rng: np.random.Generator) -> Pair | None:
    scene = free_scene(rng, sign=0.0)
    asker = ask.relation if rng.random() < 0.5 else ask.position
    return _yes_and_no(scene, lambda: asker(scene, rng))


def _color(rng: np.random.Generator) -> Pair | None:
    scene = free_scene(rng)
    return _yes_and_no(scene, lambda: ask.color(scene, rng))


def _ocr(rng: np.random.Generator) -> Pair | None:
    scene = make_scene(rng, [random_name(rng) for _ in range(3)], ask.random_code(rng, int(rng.integers(2, 4))))
    return _yes_and_no(scene, lambda: ask.reading(scene, rng))


def _scene(rng: np.random.Generator) -> Pair | None:
    scene = free_scene(rng)
    return _yes_and_no(scene, lambda: ask.background(scene, rng))


def _commonsense(rng: np.random.Generator) -> Pair | None:
    """One thing that rolls and one that does not, both of a colour of their own."""
    scene = free_scene(rng, fewest=3)
    counts = Counter(t.color for t in scene.things)
    alone = [t for t in scene.things if counts[t.color] == 1]
    rolls = [t for t in alone if t.shape in ("circle", "ring")]
    stays = [t for t in alone if t.shape not in ("circle", "ring")]
    if not rolls or not stays:
        return None
    return scene, f"Can the {rolls[0].color} object roll?", f"Can the {stays[0].color} object roll?"


def _calculation(rng: np.random.Generator) -> Pair | None:
    scene = make_scene(rng, [random_name(rng) for _ in range(3)], f"{rng.integers(10)}+{rng.integers(10)}")
    return _yes_and_no(scene, lambda: ask.reading(scene, rng))


def _yes_and_no(scene: Scene, asker: Callable[[], list[ask.Question]], tries: int = 200) -> Pair | None:
    """Draw questions until one is answered yes and another, of the same first words, no."""
    found: dict[str, str] = {}
    for _ in range(tries):
        for q in asker():
            if q.answer in ("Yes", "No"):
                found.setdefault(q.answer, q.text)
        if len(found) == 2:
            return scene, found["Yes"], found["No"]
    return None


MME_TASKS: dict[str, Callable[[np.random.Generator], Pair | None]] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _color,
    "scene": _scene,
    "OCR": _ocr,
    "commonsense_reasoning": _commonsense,
    "numerical_calculation": _calculation,
}
MME_FOLDERS_WITH_IMAGES = ("scene",)  # the release keeps these apart: images/ and questions_answers_YN/


def write_mme(folder: Path, seed: int = SEED) -> int:
    """Write MME: two questions for each image, the first answered yes; returns the questions' number."""
    rows, root = [], folder / "MME_Benchmark_release_version"
    for number, (task, make) in enumerate(MME_TASKS.items()):
        rng = np.random.default_rng([seed, 2, number])
        for count, (scene, yes, no) in enumerate(_pairs(make, rng, MME_IMAGES), start=1):
            inside = task in MME_FOLDERS_WITH_IMAGES
            image = f"{task}/{'images/' if inside else ''}{count:04d}.jpg"
            save_image(scene, root / image)
            text = root / task / ("questions_answers_YN" if inside else "") / f"{count:04d}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(
                f"{yes} Please answer yes or no.\tYes\n{no} Please answer yes or no.\tNo\n", encoding="utf-8"
            )
            rows += [{"question_id": image, "image": image, "text": q + ask.SHORT, "category": task} for q in (yes, no)]
    write_lines(folder / "llava_mme.jsonl", rows)
    return len(rows)


def _pairs(make: Callable[[np.random.Generator], Pair | None], rng: np.random.Generator, number: int) -> Iterator[Pair]:
    done = 0
    while done < number:
        pair = make(rng)
        if pair:
            done += 1
            yield pair


def write_textvqa(folder: Path, seed: int = SEED) -> int:
    """Write TextVQA: codes and numbers on signs, ten answers each, an empty OCR line; returns the questions' number.

    Eight or nine of ten annotators agree; the others misread one character, as people do.
    """
    rng = np.random.default_rng([seed, 3])
    questions: list[dict] = []
    data: list[dict] = []
    while len({row["image_id"] for row in data}) < TEXTVQA_IMAGES:
        scene = make_scene(
            rng,
            [random_name(rng) for _ in range(int(rng.integers(1, 6)))],
            ask.random_code(rng, int(rng.integers(2, 4))),
        )
        if scene.sign is None:
            continue
        image_id = f"{rng.integers(2**63):016x}"
        save_image(scene, folder / "train_images" / f"{image_id}.jpg")
        asked: dict[str, ask.Question] = {}
        while len(asked) < 2:
            asked |= {q.text: q for q in ask.reading(scene, rng) if q.kind == "reading"}
        for q in list(asked.values())[:2]:
            wrong = int(rng.integers(1, 3))
            answers = [q.answer.lower()] * (10 - wrong) + [ask.near_miss(q.answer, rng).lower() for _ in range(wrong)]
            data.append(
                {
                    "question_id": 34602 + len(data),
                    "question": q.text,
                    "image_id": image_id,
                    "image_classes": ["Sign"],
                    "image_width": IMAGE_SIZE,
                    "image_height": IMAGE_SIZE,
                    "answers": [answers[i] for i in rng.permutation(10)],
                    "set_name": "val",
                }
            )
            text = f"{q.text}{ask.NO_OCR}{ask.SHORT}"
            questions.append({"question_id": image_id, "image": f"{image_id}.jpg", "text": text, "category": "default"})
    write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", questions)
    (folder / "TextVQA_0.5.1_val.json").write_text(
        json.dumps({"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}),
        encoding="utf-8",
    )
    return len(questions)


WRITERS: dict[str, Callable[[Path, int], int]] = {
    "pope": write_pope,
    "MME": write_mme,
    "textvqa": write_textvqa,
    "gqa": write_gqa,
    "vqav2": write_vqav2,
    "vizwiz": write_vizwiz,
    "mmbench": write_mmbench,
    "mmbench_cn": write_mmbench_cn,
    "scienceqa": write_scienceqa,
    "seed_bench": write_seed_bench,
    "OCRBench": write_ocrbench,
    "mm-vet": write_mm_vet,
    "GPT_Zero_Shot_QA/TGIF_Zero_Shot_QA": write_tgif_qa,
    "GPT_Zero_Shot_QA/MSVD_Zero_Shot_QA": write_msvd_qa,
    "GPT_Zero_Shot_QA/MSRVTT_Zero_Shot_QA": write_msrvtt_qa,
}


def write_all(root: Path, seed: int = SEED, only: Sequence[str] = ()) -> dict[str, int]:
    """Write the mini benchmarks (all, or `only` some) under `root/<benchmark>/mini`, replacing what was there.

    Returns the number of questions by benchmark.
    """
    counts = {}
    for name in only or WRITERS:
        folder = root / name / "mini"
        if folder.exists():
            shutil.rmtree(folder)
        counts[name] = WRITERS[name](folder, seed)
    return counts
