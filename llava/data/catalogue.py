"""What every benchmark's full set consists of: files and folders, where they come from, how much must be in them."""

from __future__ import annotations

from dataclasses import dataclass

EVAL_ZIP = "LLaVA's eval.zip (linked in docs/Evaluation.md of haotian-liu/LLaVA)"
COCO = "cocodataset.org, download page"


@dataclass(frozen=True)
class Item:
    """One file or folder of a set.

    Args:
        path: below the benchmark's folder; ends with `/` for a folder.
        source: where to get it.
        rows: rows (questions, labels, annotations) of the complete file; None: not fixed or unknown.
        count: files of the complete folder; None: unknown.
        sha256: of the official file, where one was at hand to be measured.
        optional: the set works without it.
    """

    path: str
    source: str
    rows: int | None = None
    count: int | None = None
    sha256: str | None = None
    optional: bool = False

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")


@dataclass(frozen=True)
class Entry:
    """A benchmark's set: licence, items, data set of the hub that `convert` reads, remarks."""

    licence: str
    items: tuple[Item, ...]
    mirror: str = ""
    remark: str = ""


def _video(archive: str, folder: str, questions: int) -> Entry:
    source = "Video-ChatGPT's zero-shot QA archives (linked in Video-LLaVA's TRAIN_AND_VALIDATE.md)"
    return Entry(
        "terms of the videos' sources",
        (
            Item("test_q.json", source, rows=questions),
            Item("test_a.json", source, rows=questions),
            Item(f"{folder}/", f"{source}, {archive}"),
        ),
        remark="Row counts are those of the data sets' papers.",
    )


_POPE = "github.com/AoiDragon/POPE, output/coco, at commit e3e3926"
_MMBENCH = "download.openmmlab.com/mmclassification/datasets/mmbench/"
_VQA = "visualqa.org, download page (VQA v2)"
_VIZWIZ = "vizwiz.org, VQA task page"

CATALOGUE: dict[str, Entry] = {
    "gqa": Entry(
        "CC BY 4.0",
        (
            Item("llava_gqa_testdev_balanced.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=12578),
            Item("data/testdev_balanced_questions.json", "Stanford's GQA page, questions1.2.zip", rows=12578),
            Item("data/images/", "Stanford's GQA page, images.zip"),
        ),
        "lmms-lab/GQA (testdev_balanced_instructions and testdev_balanced_images)",
        "398 of the images are used.",
    ),
    "mmbench": Entry(
        "Apache-2.0 (code)",
        (Item("mmbench_dev_20230712.tsv", _MMBENCH, rows=4377),),
        "lmms-lab/MMBench_EN (dev; a later version with other rows)",
    ),
    "mmbench_cn": Entry(
        "Apache-2.0 (code)",
        (Item("mmbench_dev_cn_20231003.tsv", _MMBENCH, rows=4329),),
        "lmms-lab/MMBench_CN (dev)",
        "The file may lie in mmbench/ too.",
    ),
    "mme": Entry(
        "academic research only, not to be passed on",
        (
            Item("llava_mme.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=2374),
            Item("MME_Benchmark_release_version/", "on request from the MME authors"),
        ),
        "lmms-lab/MME",
    ),
    "pope": Entry(
        "MIT (questions); COCO's terms (images)",
        (
            Item(
                "llava_pope_test.jsonl",
                f"{EVAL_ZIP}, or rebuilt",
                rows=8910,
                sha256="1d3b41f0dced74b4f361c659787ef673497cfac54a6be7bde00eb405bab03c70",
            ),
            Item(
                "coco/coco_pope_adversarial.json",
                _POPE,
                rows=3000,
                sha256="1d8f0906a9b50c05640f6f23abfac97523be2a1bed28f7eadc63b811699b2d26",
            ),
            Item(
                "coco/coco_pope_popular.json",
                _POPE,
                rows=3000,
                sha256="5b16653023bf4f64d57eb0d168259de6627f5cde7538b85ebed3cc33034aa6cc",
            ),
            Item(
                "coco/coco_pope_random.json",
                _POPE,
                rows=2910,
                sha256="c16b65d2df6d70bb0814c8a4375833d39cdb09928fd936d3fc546491efa37f35",
            ),
            Item("val2014/", f"{COCO}, val2014.zip"),
        ),
        "lmms-lab/POPE (a later version: its random split has 3000 rows, so the score differs by some tenths)",
        "500 of the images are used.",
    ),
    "scienceqa": Entry(
        "CC BY-NC-SA 4.0",
        (
            Item("llava_test_CQM-A.json", f"{EVAL_ZIP}, or rebuilt", rows=4241),
            Item("problems.json", "github.com/lupantech/ScienceQA, data/scienceqa", rows=21208),
            Item("pid_splits.json", "github.com/lupantech/ScienceQA, data/scienceqa"),
            Item("images/test/", "github.com/lupantech/ScienceQA, tools/download.sh", count=2017),
        ),
        "lmms-lab/ScienceQA (ScienceQA-FULL, test; without problem ids)",
    ),
    "vqav2": Entry(
        "CC BY 4.0 (annotations); COCO's terms (images)",
        (
            Item("llava_vqav2_mscoco_test-dev2015.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=107394),
            Item("llava_vqav2_mscoco_test2015.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=447793),
            Item("test2015/", f"{COCO}, test2015.zip", count=81434),
        ),
        "lmms-lab/VQAv2 (testdev and test)",
        "Labels are not public: the EvalAI server scores the upload.",
    ),
    "vqav2_val": Entry(
        "CC BY 4.0 (annotations); COCO's terms (images)",
        (
            Item("llava_vqav2_mscoco_val2014.jsonl", "rebuilt from the official questions", rows=214354),
            Item("v2_mscoco_val2014_annotations.json", _VQA, rows=214354),
            Item("val2014/", f"{COCO}, val2014.zip"),
        ),
        "lmms-lab/VQAv2 (validation)",
    ),
    "textvqa": Entry(
        "CC BY 4.0",
        (
            Item("llava_textvqa_val_v051_ocr.jsonl", EVAL_ZIP, rows=5000),
            Item("TextVQA_0.5.1_val.json", "textvqa.org, data set page", rows=5000),
            Item("train_images/", "textvqa.org, data set page, train_val_images.zip"),
        ),
        "lmms-lab/textvqa (validation; its OCR tokens may differ from LLaVA's)",
        "3166 of the images are used.",
    ),
    "vizwiz": Entry(
        "CC BY 4.0",
        (
            Item("llava_test.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=8000),
            Item("test.json", f"{_VIZWIZ}, Annotations.zip", rows=8000, optional=True),
            Item("test/", f"{_VIZWIZ}, test.zip", count=8000),
        ),
        "lmms-lab/VizWiz-VQA (test)",
        "Labels are not public: the EvalAI server scores the upload.",
    ),
    "vizwiz_val": Entry(
        "CC BY 4.0",
        (
            Item("llava_val.jsonl", "rebuilt from val.json", rows=4319),
            Item("val.json", f"{_VIZWIZ}, Annotations.zip", rows=4319),
            Item("val/", f"{_VIZWIZ}, val.zip", count=4319),
        ),
        "lmms-lab/VizWiz-VQA (val)",
    ),
    "ocrbench": Entry(
        "MIT (questions); terms of the 25 sources (images)",
        (
            Item(
                "OCRBench/OCRBench.json",
                "github.com/Yuliang-Liu/MultimodalOCR, OCRBench/OCRBench",
                rows=1000,
                sha256="df75957e75ea052e9f38f2c67a4f6676103998517345cf49ef7d03b62c835864",
            ),
            Item("OCRBench_Images/", "images archive linked in the same repository"),
        ),
        "echo840/OCRBench",
    ),
    "seed_bench": Entry(
        "CC BY-NC 4.0",
        (
            Item("llava-seed-bench.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=19242),
            Item("SEED-Bench.json", "SEED-Bench's data set page", rows=19242),
            Item("SEED-Bench-image/", "SEED-Bench's data set page"),
            Item("SEED-Bench-video-image/", "one middle frame per video question, extracted from the videos"),
        ),
        "lmms-lab/SEED-Bench",
    ),
    "mm_vet": Entry(
        "see the release",
        (
            Item("llava-mm-vet.jsonl", f"{EVAL_ZIP}, or rebuilt", rows=218),
            Item("images/", "github.com/yuweihao/MM-Vet, mm-vet.zip"),
        ),
        "lmms-lab/MMVet",
        "Graded by the authors' GPT-4 tool.",
    ),
    "tgif_qa": _video("TGIF_Zero_Shot_QA", "mp4", 13691),
    "msvd_qa": _video("MSVD_Zero_Shot_QA", "videos", 13157),
    "msrvtt_qa": _video("MSRVTT_Zero_Shot_QA", "videos/all", 72821),
}
