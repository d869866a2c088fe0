"""Parquet files of the hub's benchmark mirrors turned into the official layout.

One function per benchmark: it takes the rows (dictionaries) and the benchmark's folder, and writes images, labels and
the question file. Column names are those of the lmms-lab mirrors (OCRBench: echo840), with the usual variants accepted.
"""

from __future__ import annotations

import base64
import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data import questions
from llava.errors import BadData, BadInput
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import SINGLE_WORD
from llava.eval.benchmarks.mme import YES_OR_NO

Record = Mapping[str, Any]
BATCH = 64
"""Rows read at once; images are inside."""


def read_parquet(paths: Sequence[Path]) -> Iterator[Record]:
    """Yield the rows of parquet files, in the order given.

    Raises:
        BadData: a file is not parquet.
        BadInput: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput("Parquet files need pyarrow: pip install 'llava-dart[eval]'.") from error
    for path in paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise BadData(f"{path} is not a complete parquet file: {error}.") from error


def take(record: Record, *names: str) -> Any:
    """Return the first column of these names that a row has.

    Raises:
        BadData: none is there; the message lists the columns.
    """
    for name in names:
        if record.get(name) is not None:
            return record[name]
    raise BadData(f"A row has no column {' or '.join(names)}; it has: {', '.join(record)}.")


def image_bytes(cell: Any) -> bytes:
    """Return the image file inside a cell: bytes, {"bytes": ...}, or a list with one of these.

    Raises:
        BadData: it holds none.
    """
    if isinstance(cell, list) and cell:
        cell = cell[0]
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise BadData("A row has no image bytes: use the mirror's own parquet files, not a table that links images.")
    return data


def save(path: Path, cell: Any) -> None:
    """Write an image once; its name need not tell its kind."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(cell))


def _safe(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", name)


def gqa(records: Iterable[Record], root: Path) -> None:
    """Two tables: questions (`testdev_balanced_instructions`) and images (`testdev_balanced_images`)."""
    gold: dict[str, Any] = {}
    for record in records:
        if record.get("question") is not None:
            gold[str(take(record, "id"))] = {k: v for k, v in record.items() if k not in ("id", "image")}
        elif record.get("image") is not None:
            save(root / "data" / "images" / f"{take(record, 'id')}.jpg", record["image"])
    if gold:
        files.write_json(root / "data" / "testdev_balanced_questions.json", gold)
        questions.gqa(root)


def pope(records: Iterable[Record], root: Path) -> None:
    """Labels, questions and images; today's mirror has the later random split (3000 rows), as its row count shows."""
    labels: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        image = Path(str(take(record, "image_source"))).stem + ".jpg"
        save(root / "val2014" / image, record.get("image"))
        rows = labels[str(take(record, "category"))]
        number = len(rows) + 1
        text, label = str(take(record, "question")), str(take(record, "answer")).lower()
        rows.append({"question_id": number, "image": image, "text": text, "label": label})
    for split, rows in labels.items():
        files.write_rows(root / "coco" / f"coco_pope_{split}.json", rows)
    questions.pope(root)


def mme(records: Iterable[Record], root: Path) -> None:
    """Images and text files side by side; the two questions of an image are brought together."""
    release = root / "MME_Benchmark_release_version"
    pairs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        name = str(take(record, "question_id"))
        category = str(take(record, "category"))
        name = name if "/" in name else f"{category}/{name}"
        name = f"{category}/{name.rpartition('/')[2]}"
        save(release / name, record.get("image"))
        pairs[name].append({key: value for key, value in record.items() if key != "image"})
    rows = []
    for name, pair in pairs.items():
        asked = [str(take(record, "question")).replace(YES_OR_NO, "").strip() for record in pair]
        gold = [f"{q} {YES_OR_NO}\t{take(record, 'answer')}\n" for q, record in zip(asked, pair, strict=True)]
        (release / name).with_suffix(".txt").write_text("".join(gold), encoding="utf-8")
        rows += [questions.line(name, name, f"{q}\n{SINGLE_WORD}", name.split("/")[0]) for q in asked]
    files.write_rows(root / "llava_mme.jsonl", rows)


def textvqa(records: Iterable[Record], root: Path) -> None:
    """Annotations, images and questions with the mirror's OCR tokens (LLaVA's come from Rosetta and may differ)."""
    items, rows = [], []
    for record in records:
        key = str(take(record, "image_id"))
        save(root / "train_images" / f"{key}.jpg", record.get("image"))
        items.append({name: value for name, value in record.items() if name != "image"})
        hint = ", ".join(record.get("ocr_tokens") or [])
        text = f"{take(record, 'question')}\nReference OCR token: {hint}\n{SINGLE_WORD}"
        rows.append(questions.line(key, f"{key}.jpg", text))
    files.write_json(root / "TextVQA_0.5.1_val.json", {"data": items})
    files.write_rows(root / "llava_textvqa_val_v051_ocr.jsonl", rows)


def _vqa_records(records: Iterable[Record], root: Path, folder: str) -> Iterator[tuple[Record, dict[str, Any]]]:
    for record in records:
        image = f"COCO_{folder}_{int(take(record, 'image_id')):012d}.jpg"
        save(root / folder / image, record.get("image"))
        yield record, questions.line(int(take(record, "question_id")), image, f"{record['question']}\n{SINGLE_WORD}")


def vqav2_test(records: Iterable[Record], root: Path) -> None:
    """The mirror's test split: ids of all questions of the upload."""
    rows = [row for _, row in _vqa_records(records, root, "test2015")]
    files.write_rows(root / "llava_vqav2_mscoco_test2015.jsonl", rows)


def vqav2(records: Iterable[Record], root: Path) -> None:
    """The mirror's testdev split: the questions to be answered."""
    rows = [row for _, row in _vqa_records(records, root, "test2015")]
    files.write_rows(root / "llava_vqav2_mscoco_test-dev2015.jsonl", rows)


def vqav2_val(records: Iterable[Record], root: Path) -> None:
    """The mirror's validation split, with its ten answers."""
    rows, annotations = [], []
    for record, row in _vqa_records(records, root, "val2014"):
        rows.append(row)
        annotations.append({name: value for name, value in record.items() if name not in ("image", "question")})
    files.write_rows(root / "llava_vqav2_mscoco_val2014.jsonl", rows)
    files.write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})


def _vizwiz(records: Iterable[Record], root: Path, split: str) -> None:
    items = []
    for record in records:
        name = Path(str(take(record, "question_id", "image_id"))).stem
        image = f"{name if name.startswith('VizWiz') else f'VizWiz_{split}_{int(name):08d}'}.jpg"
        save(root / split / image, record.get("image"))
        item: dict[str, Any] = {"image": image, "question": str(take(record, "question"))}
        if record.get("answers"):
            listed = [a if isinstance(a, dict) else {"answer": a} for a in record["answers"]]
            item |= {"answers": listed, "answer_type": record.get("answer_type") or record.get("category")}
        items.append(item)
    files.write_json(root / f"{split}.json", sorted(items, key=lambda item: item["image"]))


def vizwiz(records: Iterable[Record], root: Path) -> None:
    """The mirror's test split."""
    _vizwiz(records, root, "test")
    questions.vizwiz(root)


def vizwiz_val(records: Iterable[Record], root: Path) -> None:
    """The mirror's val split, with its answers."""
    _vizwiz(records, root, "val")
    questions.vizwiz_val(root)


def scienceqa(records: Iterable[Record], root: Path) -> None:
    """The mirror's test split; it has no problem ids, so problems are numbered from 1 in its order."""
    problems: dict[str, Any] = {}
    for number, record in enumerate(records, start=1):
        key = str(record.get("id") or number)
        if record.get("image"):
            save(root / "images" / "test" / key / "image.png", record["image"])
        fields = {name: value for name, value in record.items() if name not in ("id", "image")}
        problems[key] = {**fields, "image": "image.png" if record.get("image") else None, "split": "test"}
    files.write_json(root / "problems.json", problems)
    files.write_json(root / "pid_splits.json", {"test": list(problems)})
    questions.scienceqa(root)


def _mmbench(records: Iterable[Record], root: Path, name: str) -> None:
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source"]
    columns += ["l2-category", "comment", "split"]
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(columns)
        for record in records:
            lower = {key.lower(): value for key, value in record.items()}
            lower["image"] = base64.b64encode(image_bytes(record.get("image"))).decode()
            take(record, "index")
            cells = (lower.get(column.lower()) for column in columns)
            table.writerow(["" if cell is None else str(cell) for cell in cells])


def mmbench(records: Iterable[Record], root: Path) -> None:
    """The mirror's English dev split."""
    _mmbench(records, root, "mmbench_dev_20230712.tsv")


def mmbench_cn(records: Iterable[Record], root: Path) -> None:
    """The mirror's Chinese dev split."""
    _mmbench(records, root, "mmbench_dev_cn_20231003.tsv")


def ocrbench(records: Iterable[Record], root: Path) -> None:
    """Items are numbered in the mirror's order; it has neither ids nor image paths."""
    items = []
    for number, record in enumerate(records):
        dataset = str(take(record, "dataset", "dataset_name"))
        path = f"{_safe(dataset)}/{number:04d}.jpg"
        save(root / "OCRBench_Images" / path, record.get("image"))
        answers = take(record, "answer", "answers")
        items.append(
            {
                "dataset_name": dataset,
                "id": number,
                "image_path": path,
                "question": str(take(record, "question")),
                "answers": answers if isinstance(answers, str) else list(answers),
                "type": str(take(record, "question_type", "type")),
            }
        )
    files.write_json(root / "OCRBench" / "OCRBench.json", items, indent=4)


def seed_bench(records: Iterable[Record], root: Path) -> None:
    """Images, and the middle one of the frames that the mirror has for a video question."""
    items = []
    for record in records:
        key, kind = str(take(record, "question_id")), take(record, "question_type_id")
        frames = record.get("image")
        frame = frames[len(frames) // 2] if isinstance(frames, list) and frames else frames
        video = record.get("data_type") == "video"
        name = f"SEED-Bench-video-image/{kind}_{key}.png" if video else f"SEED-Bench-image/{take(record, 'data_id')}"
        save(root / name, frame)
        items.append({column: value for column, value in record.items() if column != "image"})
    files.write_json(root / "SEED-Bench.json", {"questions": items})
    questions.seed_bench(root)


def mm_vet(records: Iterable[Record], root: Path) -> None:
    """Images and questions."""
    content = {}
    for record in records:
        key = str(take(record, "question_id"))
        key = key if key.startswith("v1_") else f"v1_{key}"
        save(root / "images" / f"{key}.png", record.get("image"))
        content[key] = {"imagename": f"{key}.png", "question": str(take(record, "question"))}
    files.write_json(root / "mm-vet.json", content)
    questions.mm_vet(root)


def videos(records: Iterable[Record], root: Path) -> None:
    """Questions and answers only; the clips come as an archive."""
    asked, golds = [], []
    for number, record in enumerate(records):
        key = record.get("question_id") or f"q_{number}"
        name = Path(str(take(record, "video_name", "video"))).stem
        asked.append({"video_name": name, "question": str(take(record, "question")), "question_id": key})
        golds.append({"answer": str(take(record, "answer")), "question_id": key})
    files.write_json(root / "test_q.json", asked)
    files.write_json(root / "test_a.json", golds)


CONVERT: dict[str, Callable[[Iterable[Record], Path], None]] = {
    **{function.__name__: function for function in (gqa, pope, mme, textvqa, vqav2, vqav2_val, vizwiz, vizwiz_val)},
    **{function.__name__: function for function in (scienceqa, mmbench, mmbench_cn, ocrbench, seed_bench, mm_vet)},
    **dict.fromkeys(("tgif_qa", "msvd_qa", "msrvtt_qa"), videos),
}
"""Benchmark -> converter of its mirror's rows."""


def convert(name: str, paths: Sequence[Path], root: Path) -> None:
    """Convert parquet files of a benchmark's mirror; VQAv2's test files (not testdev) become the list of ids.

    Raises:
        BadData: a file is damaged or lacks columns.
    """
    for path in paths if name == "vqav2" else ():
        if path.name.startswith("test-"):
            vqav2_test(read_parquet([path for path in paths if path.name.startswith("test-")]), root)
            break
    chosen = [path for path in paths if not (name == "vqav2" and path.name.startswith("test-"))]
    if chosen:
        CONVERT[name](read_parquet(chosen), root)
