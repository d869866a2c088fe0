"""Mini benchmarks with lettered options: MMBench, MMBench-CN, ScienceQA and SEED-Bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .chinese import translate
from .letters import LETTER, LETTERS, Item, draw_options, lines, sample_item
from .mini_scenes import SEED, SMALL, image_base64, save_image, wide_scene, write_json, write_lines
from .questions import pick
from .scenes import Scene

MMBENCH_IMAGES, MMBENCH_QUESTIONS = 20, 3
SCIENCEQA_IMAGES, SCIENCEQA_QUESTIONS, SCIENCEQA_TEXT_ONLY = 25, 4, 10
SEED_IMAGES, SEED_FRAMES, SEED_QUESTIONS = 24, 8, 4
ROTATION = 1_000_000
TSV = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category"),
    *("comment", "split"),
)
# item -> category and l2-category of MMBench, question type of SEED-Bench, topic of ScienceQA
CATEGORIES = {
    "attribute": ("attribute_recognition", "finegrained_perception (instance-level)", "Instance Attributes", "colors"),
    "corner": ("object_localization", "finegrained_perception (instance-level)", "Instance Location", "maps"),
    "count": ("object_localization", "finegrained_perception (instance-level)", "Instances Counting", "counting"),
    "presence": ("object_localization", "finegrained_perception (instance-level)", "Instance Identity", "objects"),
    "sign": ("ocr", "finegrained_perception (instance-level)", "Text Understanding", "reading"),
    "size": ("attribute_comparison", "finegrained_perception (cross-instance)", "Visual Reasoning", "sizes"),
    "extreme": ("spatial_relationship", "finegrained_perception (cross-instance)", "Spatial Relation", "maps"),
    "beside": ("spatial_relationship", "finegrained_perception (cross-instance)", "Spatial Relation", "maps"),
    "background": ("image_scene", "coarse_perception", "Scene Understanding", "patterns"),
    "roll": ("physical_property_reasoning", "attribute_reasoning", "Visual Reasoning", "motion"),
}
SEED_TYPES = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attributes",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
)


class Items:
    """Multiple-choice questions of all kinds in turn."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.asked, self.drawn = rng, dict.fromkeys(CATEGORIES, 0), [0] * (len(LETTERS) + 1)

    def about(self, scene: Scene, number: int) -> list[tuple[str, Item]]:
        """Up to `number` different ones with their kind, rarest kinds first."""
        out: list[tuple[str, Item]] = []
        for kind in sorted(self.asked, key=lambda k: (self.asked[k], self.rng.random())):
            item = sample_item(scene, self.rng, (kind,))
            if item and len(out) < number:
                self.asked[kind] += 1
                out.append((kind, item))
        return out

    def options(self, item: Item, numbers: tuple[int, ...]) -> list[str]:
        """Options of an item, as many as one of `numbers`; the right one stands at every place equally often."""
        options = draw_options(item, self.rng, int(pick(self.rng, numbers)))
        place = self.drawn[len(options)] % len(options)
        self.drawn[len(options)] += 1
        options.remove(item.right)
        return [*options[:place], item.right, *options[place:]]


def _write_mmbench(folder: Path, name: str, rng: np.random.Generator, chinese: bool) -> int:
    """One row for each rotation of the options; a later question on an image names the row that holds it."""
    items = Items(rng)
    base: list[dict[str, str]] = []
    turned: list[dict[str, str]] = []
    for _ in range(MMBENCH_IMAGES):
        scene = wide_scene(rng, sign=0.6)
        image, owner = image_base64(scene), str(len(base) + 1)
        for kind, item in items.about(scene, MMBENCH_QUESTIONS):
            index = len(base) + 1
            options = items.options(item, (2, 3, 4, 4, 4))
            for k in range(len(options)):
                shown = options[k:] + options[:k]
                words = [translate(o) for o in shown] if chinese else shown
                row = {
                    "index": str(index + k * ROTATION),
                    "question": item.text(chinese),
                    "hint": item.hint(chinese) if index % 4 == 0 else "",
                    **dict(zip(LETTERS, [*words, "", "", ""], strict=False)),
                    "answer": LETTERS[shown.index(item.right)],
                    "category": CATEGORIES[kind][0],
                    "image": image if str(index) == owner and k == 0 else owner,
                    "source": "llava.train",
                    "l2-category": CATEGORIES[kind][1],
                    "comment": "",
                    "split": "dev",
                }
                (turned if k else base).append(row)
    table = [TSV, *([row[column] for column in TSV] for row in base + turned)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join("\t".join(cells) + "\n" for cells in table), encoding="utf-8")
    return len(base) + len(turned)


def write_mmbench(folder: Path, seed: int = SEED) -> int:
    """Write MMBench dev in English; returns the rows' number."""
    return _write_mmbench(folder, "mmbench_dev_20230712.tsv", np.random.default_rng([seed, 7]), chinese=False)


def write_mmbench_cn(folder: Path, seed: int = SEED) -> int:
    """Write MMBench dev in Chinese; returns the rows' number."""
    return _write_mmbench(folder, "mmbench_dev_cn_20231003.tsv", np.random.default_rng([seed, 8]), chinese=True)


def write_scienceqa(folder: Path, seed: int = SEED) -> int:
    """Write ScienceQA: questions with an image, and a few about numbers without; returns the questions' number."""
    rng = np.random.default_rng([seed, 9])
    items, asked = Items(rng), []
    problems: dict[str, dict] = {}

    def add(text: str, options: list[str], right: str, hint: str, image: str | None, topic: str) -> None:
        key = str(900001 + len(problems))
        problems[key] = {
            "question": text,
            "choices": options,
            "answer": options.index(right),
            "hint": hint,
            "image": image and image.split("/")[1],
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
            "topic": topic,
            "category": topic,
            "skill": topic,
            "lecture": "",
            "solution": "",
            "split": "test",
        }
        context = f"Context: {hint}\n" if hint else ""
        value = f"{context}{text}\n{lines(options, False)}"
        turns = [
            {"from": "human", "value": f"<image>\n{value}" if image else value},
            {"from": "gpt", "value": LETTERS[options.index(right)]},
        ]
        asked.append({"id": key, **({"image": image} if image else {}), "conversations": turns})

    for _ in range(SCIENCEQA_IMAGES):
        scene, image = wide_scene(rng, sign=0.6), f"{900001 + len(problems)}/image.jpg"
        save_image(scene, folder / "images" / "test" / image, SMALL)
        for kind, item in items.about(scene, SCIENCEQA_QUESTIONS):
            options = items.options(item, (2, 3, 4, 4))
            hint = item.hint(False) if kind == "roll" or len(problems) % 3 == 0 else ""
            add(item.text(False), options, item.right, hint, image, CATEGORIES[kind][3])
    for _ in range(SCIENCEQA_TEXT_ONLY):
        a, b = (str(n) for n in rng.permutation(19)[:2])
        add("Which number is greater?", [a, b], max(a, b, key=int), "", None, "numbers")
    write_json(folder / "llava_test_CQM-A.json", asked)
    write_json(folder / "problems.json", problems)
    splits: dict[str, list] = {name: [] for name in ("train", "val", "trainval", "minitrain", "minival", "minitest")}
    write_json(folder / "pid_splits.json", {**splits, "test": list(problems)})
    return len(asked)


def write_seed_bench(folder: Path, seed: int = SEED) -> int:
    """Write SEED-Bench: images, and frames of videos (a still tells nothing of the motion, so none is asked for)."""
    rng = np.random.default_rng([seed, 10])
    items, asked = Items(rng), []
    questions: list[dict] = []
    types = {name: number for number, name in enumerate(SEED_TYPES, start=1)}
    for number in range(SEED_IMAGES + SEED_FRAMES):
        video = number >= SEED_IMAGES
        scene, data_id = wide_scene(rng, sign=0.6), f"{number:06d}"
        image = f"SEED-Bench-{'video-image' if video else 'image'}/{data_id}.jpg"
        save_image(scene, folder / image, SMALL)
        for kind, item in items.about(scene, SEED_QUESTIONS):
            if len(item.wrong) < len(LETTERS) - 1:
                continue
            options = items.options(item, (len(LETTERS),))
            key = f"v{len(questions)}" if video else len(questions)
            text = f"{item.text(False)}\n{lines(options, False)}{LETTER}"
            asked.append({"question_id": key, "image": image, "text": text, "category": CATEGORIES[kind][2]})
            questions.append(
                {
                    "answer": LETTERS[options.index(item.right)],
                    **{f"choice_{c.lower()}": o for c, o in zip(LETTERS, options, strict=True)},
                    "data_id": data_id,
                    "data_type": "video" if video else "image",
                    "question": item.text(False),
                    "question_id": str(key),
                    "question_type_id": types[CATEGORIES[kind][2]],
                }
            )
    write_lines(folder / "llava-seed-bench.jsonl", asked)
    write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": types})
    return len(asked)
