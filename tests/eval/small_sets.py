"""Writes small sets of every benchmark in its official format; `write(name, root)` returns the gold answers to it."""

import base64
import csv
import io
import json
from pathlib import Path

from PIL import Image

from tests.eval.small_data import (
    SINGLE_WORD,
    TEXTVQA_ANSWERS,
    answers_to,
    read_lines,
    write_image,
    write_lines,
    write_mme,
    write_pope,
    write_textvqa,
)

LETTER = "Answer with the option's letter from the given choices directly."
UNSURE = "When the provided information is insufficient, respond with 'Unanswerable'."


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def row(question_id, text, prompt, **further):
    return {"question_id": question_id, "prompt": prompt, "text": text, "metadata": {}, **further}


def ten(**counts):
    """`ten(nokia=7, coke=3)`: ten human answers; underscores are spaces."""
    return [word.replace("_", " ") for word, count in counts.items() for _ in range(count)]


# --------------------------------------------------------------------------------------------- GQA

GQA_GOLD = [  # the card's worked example: gold, structural type, answer that is right where the card says so
    ("yes", "verify", "Yes."),
    ("left", "query", "Left"),
    ("man", "query", "The man"),
    ("shirt", "query", "shirts"),
    ("no", "verify", "No, there is not."),
    ("dark brown", "query", "Dark brown.."),
]


def write_gqa(root):
    questions, gold = [], {}
    for number, (answer, structural, _) in enumerate(GQA_GOLD):
        key, image = f"0{number}", f"n{number}.jpg"
        write_image(root / "data" / "images" / image, number)
        text = f"What about {number}?\n{SINGLE_WORD}"
        questions.append({"question_id": key, "image": image, "text": text, "category": "default"})
        gold[key] = {
            "question": f"What about {number}?",
            "answer": answer,
            "isBalanced": True,
            "imageId": f"n{number}",
            "types": {"structural": structural, "semantic": "rel", "detailed": "x"},
            "semantic": [{"operation": "select", "argument": "cup"}, {"operation": "exist", "argument": "?"}],
            "groups": {"global": None if number else "place"},
        }
    write_lines(root / "llava_gqa_testdev_balanced.jsonl", questions)
    write_json(root / "data" / "testdev_balanced_questions.json", gold)
    return answers_to(questions, [answer.capitalize() + "." for answer, _, _ in GQA_GOLD])


# --------------------------------------------------------------------------------------------- MMBench

MMBENCH_GROUPS = {1: (["red", "blue", "green"], 1), 2: (["cat", "dog"], 0), 3: (["one", "two"], 1)}
"""Question -> (options, place of the right one); as in the card's worked example."""


def mmbench_lines():
    for number, (options, right) in MMBENCH_GROUPS.items():
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            yield number + turn * 1_000_000, turned, "ABCD"[turned.index(options[right])]


def encoded_image(shade):
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (shade, 40, 200)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_mmbench(root, name="mmbench_dev_20230712"):
    columns = ["index", "question", "hint", *"ABCD", "answer", "category", "image", "source", "l2-category"]
    columns += ["comment", "split"]
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    with (root / f"{name}.tsv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(columns)
        for index, options, letter in mmbench_lines():
            number = index % 1_000_000
            hint = "Look twice.\nThen answer." if number == 1 else "nan"
            image = encoded_image(number) if index < 1_000_000 else str(number)
            cells = [*options, "", "", ""][:4]
            table.writerow([index, f"Which {number}?", hint, *cells, letter, "colour", image, "x", "look", "", "dev"])
            head = "Look twice.\nThen answer.\n" if number == 1 else ""
            listed = "\n".join(f"{name}. {text}" for name, text in zip("ABCD", options, strict=False))
            rows.append(row(index, letter, f"{head}Which {number}?\n{listed}"))
    return rows


def write_mmbench_cn(root):
    return write_mmbench(root, "mmbench_dev_cn_20231003")


# --------------------------------------------------------------------------------------------- ScienceQA

SCIENCEQA = [  # the card's worked example: image, number of choices, gold
    (True, 3, "A"),
    (True, 2, "B"),
    (False, 4, "C"),
    (True, 2, "A"),
    (True, 2, "A"),
    (True, 3, "B"),
    (False, 2, "B"),
]


def write_scienceqa(root):
    items, problems, rows = [], {}, []
    for number, (image, choices, letter) in enumerate(SCIENCEQA, start=1):
        key = str(number)
        asked = "\n".join([f"Which {key}?", *(f"{x}. {x.lower()}{x.lower()}" for x in "ABCD"[:choices])])
        item = {"id": key, "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": letter}]}
        if image:
            write_image(root / "images" / "test" / key / "image.png", number)
            item |= {"image": f"{key}/image.png"}
            item["conversations"][0]["value"] = f"<image>\n{asked}"
        items.append(item)
        problems[key] = {
            "question": f"Which {key}?",
            "choices": [f"choice {n}" for n in range(choices)],
            "answer": "ABCD".index(letter),
            "image": "image.png" if image else None,
            "split": "test",
        }
        rows.append(row(key, letter, f"{'<image>' + chr(10) if image else ''}{asked}\n{LETTER}"))
    problems["99"] = {"question": "?", "choices": ["x", "y"], "answer": 0, "split": "train"}
    write_json(root / "llava_test_CQM-A.json", items)
    write_json(root / "problems.json", problems)
    write_json(root / "pid_splits.json", {"train": ["99"], "test": [item["id"] for item in items]})
    return rows


# --------------------------------------------------------------------------------------------- VQAv2, VizWiz

VQAV2_ANSWERS = [
    ten(yes=10),
    ten(yes=10),
    ten(yes=9, no=1),
    [*ten(two=2), *["3"] * 8],
    ten(on_the_table=3, table=7),
    ten(red=1, blue=9),
]
VQAV2_WORKED = [("yes", 100), ("Yes", 0), ("Yes", 100), ("2", 60), ("on table", 90), ("red", 30)]


def write_vqav2(root, split="test-dev2015", images="test2015"):
    questions, annotations = [], []
    for number, answers in enumerate(VQAV2_ANSWERS):
        key, image = 262144000 + number, f"COCO_{images}_{number:012d}.jpg"
        write_image(root / images / image, number)
        text = f"What about {number}?\n{SINGLE_WORD}"
        questions.append({"question_id": key, "image": image, "text": text, "category": "default"})
        listed = [{"answer": a, "answer_id": n, "answer_confidence": "yes"} for n, a in enumerate(answers, start=1)]
        kind = "yes/no" if number < 3 else "other"
        annotations.append(
            {"question_id": key, "answers": listed, "answer_type": kind, "question_type": "what", "image_id": number}
        )
    write_lines(root / f"llava_vqav2_mscoco_{split}.jsonl", questions)
    if split == "val2014":
        write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    else:
        others = [{**question, "question_id": n} for n, question in enumerate(questions[:3])]
        write_lines(root / "llava_vqav2_mscoco_test2015.jsonl", [*others, *questions])
    return answers_to(questions, [max(set(answers), key=answers.count) for answers in VQAV2_ANSWERS])


def write_vqav2_val(root):
    return write_vqav2(root, "val2014", "val2014")


VIZWIZ_ANSWERS = [
    ten(unanswerable=7, coke=3),
    ten(unanswerable=7, coke=3),
    ten(coca_cola=2, coke=8),
    ten(coke=10),
]
VIZWIZ_WORKED = [("Unanswerable", 1.0), ("coke", 0.9), ("Coca-Cola", 0.6), ("can", 0.0)]


def write_vizwiz(root, split="test"):
    questions, items = [], []
    for number, answers in enumerate(VIZWIZ_ANSWERS):
        image = f"VizWiz_{split}_{number:08d}.jpg"
        write_image(root / split / image, number)
        text = f"What is\nthis {number}?\n{UNSURE}\n{SINGLE_WORD}"
        questions.append({"question_id": number, "image": image, "text": text, "category": "default"})
        item = {"image": image, "question": f"What is\nthis {number}?"}
        if split == "val":
            item |= {"answers": [{"answer": a, "answer_confidence": "yes"} for a in answers], "answer_type": "other"}
        items.append(item)
    write_lines(root / f"llava_{split}.jsonl", questions)
    write_json(root / f"{split}.json", items)
    return answers_to(questions, [max(set(answers), key=answers.count) for answers in VIZWIZ_ANSWERS])


def write_vizwiz_val(root):
    return write_vizwiz(root, "val")


# --------------------------------------------------------------------------------------------- OCRBench

OCRBENCH = [  # the card's worked example: data set, answers, prediction, result, type
    ("IIIT5K", "CENTRE", 'The text is "centre".', 1, "Regular Text Recognition"),
    ("STVQA", ["Chatswood Epping", "Chatswood, Epping"], "chatswood,epping", 0, "Scene Text-centric VQA"),
    ("STVQA", ["Chatswood Epping", "Chatswood, Epping"], "To Chatswood, Epping", 1, "Scene Text-centric VQA"),
    (
        "HME100k",
        ["y _ { 2 } = - 1\n", "y_2 = - 1\n"],
        "$y_{2} = -1$",
        1,
        "Handwritten Mathematical Expression Recognition",
    ),
    ("HME100k", ["y _ { 2 } = - 1\n", "y_2 = - 1\n"], "Y_2=-1", 0, "Handwritten Mathematical Expression Recognition"),
    ("ORAND", "5743", "5,743", 0, "Digit String Recognition"),
]


def write_ocrbench(root):
    items, rows = [], []
    for number, (dataset, answers, _, _, kind) in enumerate(OCRBENCH):
        path, question = f"{dataset}/img/{number}.jpg", f"what is written in {number}?"
        write_image(root / "OCRBench_Images" / path, number)
        item = {"dataset_name": dataset, "id": number, "image_path": path, "question": question}
        items.append({**item, "answers": answers, "type": kind})
        gold = answers if isinstance(answers, str) else answers[0]
        rows.append(row(f"{dataset}/{number}", gold, f"{question}\n{SINGLE_WORD}"))
    write_json(root / "OCRBench" / "OCRBench.json", items)
    return rows


# --------------------------------------------------------------------------------------------- SEED-Bench, MM-Vet

SEED = [  # the card's example: id, media, type, gold, text
    (101, "image", 1, "A", "A"),
    (102, "image", 1, "B", "B."),
    (103, "image", 2, "C", "C"),
    ("v7", "video", 10, "D", "D"),
    ("v8", "video", 11, "A", "a"),
]


def write_seed_bench(root):
    questions, gold = [], []
    for number, (key, media, kind, answer, _) in enumerate(SEED):
        name = f"SEED-Bench-image/{number}" if media == "image" else f"SEED-Bench-video-image/{kind}_{key}.png"
        write_image(root / f"{name}.png" if media == "image" else root / name, number)
        if media == "image":
            (root / f"{name}.png").rename(root / name)  # the official images have no suffix
        text = f"Which {number}?\nA. a\nB. b\nC. c\nD. d\n{LETTER}"
        questions.append({"question_id": key, "image": name, "text": text, "category": "x"})
        gold.append(
            {"question_id": str(key), "question_type_id": kind, "answer": answer, "data_type": media, "question": "?"}
        )
    names = {"Scene Understanding": 1, "Instance Identity": 2, "Action Recognition": 10, "Action Prediction": 11}
    write_lines(root / "llava-seed-bench.jsonl", questions)
    write_json(root / "SEED-Bench.json", {"questions": gold, "question_type": names})
    return answers_to(questions, [answer for _, _, _, answer, _ in SEED])


def write_mm_vet(root):
    questions = []
    for number in range(3):
        write_image(root / "images" / f"v1_{number}.png", number)
        text = f"Describe {number}."
        questions.append({"question_id": number, "image": f"v1_{number}.png", "text": text, "category": "conv"})
    write_lines(root / "llava-mm-vet.jsonl", questions)
    return answers_to(questions, ["one", "two", "three"])


# --------------------------------------------------------------------------------------------- video

VIDEO_GOLDS = ["cook", "two dogs", "guitar"]


def write_video(root, folder, suffix=".mp4"):
    asked, golds = [], []
    for number, gold in enumerate(VIDEO_GOLDS):
        path = root / folder / f"video{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no real video")
        key = f"v_{number}_0"
        asked.append({"video_name": f"video{number}", "question": f"what is a man doing {number}?", "question_id": key})
        golds.append({"answer": gold, "type": 1, "question_id": key})
    write_json(root / "test_q.json", asked)
    write_json(root / "test_a.json", golds)
    return [row(q["question_id"], gold, q["question"]) for q, gold in zip(asked, VIDEO_GOLDS, strict=True)]


# --------------------------------------------------------------------------------------------- the first three


def _pope(root):
    questions = read_lines(write_pope(root) / "llava_pope_test.jsonl")
    return answers_to(questions, ["Yes" if "dog" in question["text"] else "No" for question in questions])


def _mme(root):
    questions = read_lines(write_mme(root) / "llava_mme.jsonl")
    return answers_to(questions, ["Yes", "No"] * (len(questions) // 2))


def _textvqa(root):
    questions = read_lines(write_textvqa(root) / "llava_textvqa_val_v051_ocr.jsonl")
    return answers_to(questions, [max(set(given), key=given.count) for given in TEXTVQA_ANSWERS.values()])


WRITERS = {
    "gqa": write_gqa,
    "mmbench": write_mmbench,
    "mmbench_cn": write_mmbench_cn,
    "mme": _mme,
    "pope": _pope,
    "scienceqa": write_scienceqa,
    "vqav2": write_vqav2,
    "vqav2_val": write_vqav2_val,
    "textvqa": _textvqa,
    "vizwiz": write_vizwiz,
    "vizwiz_val": write_vizwiz_val,
    "ocrbench": write_ocrbench,
    "seed_bench": write_seed_bench,
    "mm_vet": write_mm_vet,
    "tgif_qa": lambda root: write_video(root, "mp4"),
    "msvd_qa": lambda root: write_video(root, "videos", ".avi"),
    "msrvtt_qa": lambda root: write_video(root, "videos/all"),
}


def write(name: str, root: Path) -> list[dict]:
    return WRITERS[name](root)
