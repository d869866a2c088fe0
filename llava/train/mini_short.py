"""Mini benchmarks with short answers: GQA, VQAv2 and VizWiz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import compare, signs
from . import questions as ask
from .mini_scenes import SEED, SMALL, InTurn, save_image, ten_answers, wide_scene, write_json, write_lines
from .scenes import COLOR_NAMES, SHAPES, Scene
from .unanswerable import UNANSWERABLE, maybe_unanswerable

GQA_IMAGES, GQA_QUESTIONS = 36, 5
VQA_IMAGES, VQA_QUESTIONS = 36, 5
UNASKED = 2  # questions for each image that only the upload file of VQAv2 lists
VIZWIZ_IMAGES = 80
# asker, structural, semantic and detailed type, operations
GQA_TYPES: list[tuple[Callable, str, str, str, tuple[str, ...]]] = [
    (ask.existence, "verify", "obj", "existC", ("select", "exist")),
    (ask.color, "query", "attr", "directOf", ("select", "query: color")),
    (ask.shape, "query", "attr", "directOf", ("select", "query: shape")),
    (ask.position, "choose", "global", "positionChoose", ("select", "choose hposition")),
    (ask.relation, "verify", "rel", "relVerify", ("select", "verify rel")),
    (compare.further, "compare", "rel", "comparativeChoose", ("select", "select", "choose position")),
    (compare.neighbour, "query", "attr", "relO", ("select", "relate", "query: color")),
    (compare.this_or_that, "choose", "attr", "chooseAttr", ("select", "choose color")),
    (compare.both_or_either, "logical", "obj", "existAnd", ("select", "exist", "select", "exist", "and")),
    (compare.same, "compare", "attr", "twoSame", ("select", "select", "same")),
]


def read_or_add(scene: Scene, rng: np.random.Generator) -> list[ask.Question]:
    """What the sign says, or the result of the sum on it (the official normaliser has no plus sign)."""
    return signs.result(scene, rng) if signs.is_sum(scene) else signs.read(scene, rng)


# asker, question type of VQA
VQA_TYPES: list[tuple[Callable, str]] = [
    (ask.existence, "is there a"),
    (ask.color, "what color is the"),
    (compare.counting_evenly, "how many"),
    (compare.more_or_fewer, "are there"),
    (compare.bigger, "which"),
    (read_or_add, "what is"),
    (ask.position, "where is the"),
    (ask.relation, "is the"),
    (ask.background, "what"),
]


def answer_type(answer: str) -> str:
    return "yes/no" if answer in ("Yes", "No") else "number" if answer.isdigit() else "other"


def write_gqa(folder: Path, seed: int = SEED) -> int:
    """Write GQA: all structural types about equally often; returns the questions' number."""
    rng = np.random.default_rng([seed, 4])
    questions: list[dict] = []
    gold: dict[str, dict] = {}
    in_turn = InTurn([row[0] for row in GQA_TYPES], rng)
    for number in range(1, GQA_IMAGES + 1):
        scene, image = wide_scene(rng), f"n{number:06d}"
        save_image(scene, folder / "data" / "images" / f"{image}.jpg", SMALL)
        for k, q in in_turn(scene, GQA_QUESTIONS):
            _, structural, semantic, detailed, steps = GQA_TYPES[k]
            key = f"20{len(gold):07d}"
            questions.append(
                {"question_id": key, "image": f"{image}.jpg", "text": q.text + ask.SHORT, "category": "default"}
            )
            gold[key] = {
                "question": q.text,
                "answer": q.answer.lower(),
                "isBalanced": True,
                "imageId": image,
                "types": {"structural": structural, "semantic": semantic, "detailed": detailed},
                "semantic": [{"operation": step, "argument": "", "dependencies": []} for step in steps],
                "groups": {"global": q.kind, "local": None},
                "entailed": [],
            }
    write_lines(folder / "llava_gqa_testdev_balanced.jsonl", questions)
    write_json(folder / "data" / "testdev_balanced_questions.json", gold)
    return len(questions)


def write_vqav2(folder: Path, seed: int = SEED) -> int:
    """Write VQAv2 with labels of its own (the official test-dev has none in public); returns the questions' number."""
    rng = np.random.default_rng([seed, 5])
    asked: list[dict] = []
    listed: list[dict] = []
    annotations: list[dict] = []
    in_turn = InTurn([row[0] for row in VQA_TYPES], rng)
    for number in range(1, VQA_IMAGES + 1):
        scene, image = wide_scene(rng, sign=0.7), f"COCO_test2015_{number:012d}.jpg"
        save_image(scene, folder / "test2015" / image, SMALL)
        drawn = in_turn(scene, VQA_QUESTIONS)
        for place, (k, q) in enumerate(drawn):
            row = {
                "question_id": number * 1000 + place,
                "image": image,
                "text": q.text + ask.SHORT,
                "category": "default",
            }
            asked.append(row)
            answers = ten_answers(q.answer, _near(q, rng), rng)
            annotations.append(
                {
                    "question_id": row["question_id"],
                    "image_id": number,
                    "question_type": VQA_TYPES[k][1],
                    "answer_type": answer_type(q.answer),
                    "multiple_choice_answer": q.answer.lower(),
                    "answers": [
                        {"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(answers, 1)
                    ],
                }
            )
        listed += asked[-len(drawn) :]
        for place in range(UNASKED):
            text = f"{ask.existence(scene, rng)[0].text}{ask.SHORT}"
            row = {"question_id": number * 1000 + 900 + place, "image": image, "text": text, "category": "default"}
            listed.append(row)
    write_lines(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", asked)
    write_lines(folder / "llava_vqav2_mscoco_test2015.jsonl", listed)
    write_json(folder / "v2_mscoco_test-dev2015_annotations.json", {"annotations": annotations})
    return len(asked)


def _near(q: ask.Question, rng: np.random.Generator) -> list[str]:
    """What an annotator who looks less closely might say instead."""
    kind = answer_type(q.answer)
    if kind == "yes/no":
        return ["No" if q.answer == "Yes" else "Yes"]
    if kind == "number":
        return [str(int(q.answer) + 1)]
    pool = COLOR_NAMES if q.answer in COLOR_NAMES else SHAPES if q.answer in SHAPES else ()
    return [value for value in pool if value != q.answer]


def write_vizwiz(folder: Path, seed: int = SEED) -> int:
    """Write VizWiz: one question for each image, four in ten unanswerable, ten answers; returns their number."""
    rng = np.random.default_rng([seed, 6])
    questions: list[dict] = []
    gold: list[dict] = []
    while len(gold) < VIZWIZ_IMAGES:
        scene = wide_scene(rng)
        lacking = len(gold) % 5 in (1, 3)
        drawn = [q for _ in range(20) for q in maybe_unanswerable(scene, rng)]
        fitting = [q for q in drawn if (q.answer == UNANSWERABLE) == lacking]
        if not fitting:
            continue
        q, image = ask.pick(rng, fitting), f"VizWiz_test_{len(gold):08d}.jpg"
        save_image(scene, folder / "test" / image, SMALL)
        row = {"question_id": len(gold), "image": image, "text": q.text + q.ending, "category": "default"}
        questions.append(row)
        answers = ten_answers(q.answer, ["unsuitable"] if lacking else [UNANSWERABLE], rng)
        gold.append(
            {
                "image": image,
                "question": q.text.split("\n")[0],
                "answers": [{"answer": a, "answer_confidence": "yes"} for a in answers],
                "answer_type": "unanswerable" if lacking else "other",
                "answerable": int(not lacking),
            }
        )
    write_lines(folder / "llava_test.jsonl", questions)
    write_json(folder / "test.json", gold)
    return len(questions)
