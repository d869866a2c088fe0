"""Mini benchmarks that came later: readers take them, gold as prediction gives the maximum, no answer prevails."""

import base64
import csv
import io
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llava.eval import benchmarks
from llava.eval.benchmarks.scienceqa import LETTERS
from llava.train import mini, mini_letters, mini_ocr, mini_scenes, mini_short, mini_video

COMMITTED = Path(mini.__file__).parents[2] / "playground" / "data" / "eval"
NAMES = ("gqa", "vqav2", "vizwiz", "mmbench", "mmbench_cn", "scienceqa", "seed_bench", "ocrbench")
VIDEOS = ("tgif_qa", "msvd_qa", "msrvtt_qa")
BLANK = Image.new("RGB", (336, 336))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All text files of the later sets, written anew; pictures are not drawn."""
    folder = tmp_path_factory.mktemp("eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini_scenes, "draw_scene", lambda scene: (BLANK, None))
        patch.setattr(mini_video, "write_clip", lambda clip, path: None)
        for module in (mini_letters, mini_ocr, mini_short):
            patch.setattr(module, "save_image", lambda scene, path, quality: None)
        mini.write_all(folder, only=[name for name in mini.WRITERS if name not in ("pope", "MME", "textvqa")])
    return folder


def gold(name, folder):
    """Question id -> gold answer, read from the label files without the benchmark's own code."""
    if name == "gqa":
        items = json.loads((folder / "data" / "testdev_balanced_questions.json").read_text())
        return {key: item["answer"] for key, item in items.items()}
    if name == "vqav2":
        items = json.loads((folder / "v2_mscoco_test-dev2015_annotations.json").read_text())["annotations"]
        return {item["question_id"]: item["multiple_choice_answer"] for item in items}
    if name == "vizwiz":
        golds = json.loads((folder / "test.json").read_text())
        return {n: Counter(a["answer"] for a in item["answers"]).most_common(1)[0][0] for n, item in enumerate(golds)}
    if name.startswith("mmbench"):
        return {int(row["index"]): row["answer"] for row in table(name, folder)}
    if name == "scienceqa":
        items = json.loads((folder / "problems.json").read_text())
        return {key: LETTERS[item["answer"]] for key, item in items.items() if item["image"]}
    if name == "seed_bench":
        items = json.loads((folder / "SEED-Bench.json").read_text())["questions"]
        return {item["question_id"]: item["answer"] for item in items}
    if name == "ocrbench":
        items = json.loads((folder / "OCRBench" / "OCRBench.json").read_text())
        answers = [item["answers"] for item in items]
        return {
            f"{item['dataset_name']}/{item['id']}": a if isinstance(a, str) else a[-1]
            for item, a in zip(items, answers, strict=True)
        }
    return {item["question_id"]: item["answer"] for item in json.loads((folder / "test_a.json").read_text())}


def table(name, folder):
    csv.field_size_limit(10**7)
    text = next(folder.glob("*.tsv")).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


@pytest.mark.parametrize("name", NAMES + VIDEOS)
def test_gold_as_prediction_gives_the_maximum(root, name):
    benchmark = benchmarks.get(name)
    folder = root / benchmark.folder / "mini"
    questions = benchmark.questions(folder)
    answers = {str(key): answer for key, answer in gold(name, folder).items()}
    rows = [{"question_id": q.id, "prompt": q.text, "text": answers[str(q.id)]} for q in questions]
    score = benchmark.score(folder, rows)
    maximum = len(questions) if benchmark.name == "ocrbench" else 100.0
    assert score.headline.value == maximum and not score.missing and score.samples == len(questions) >= 12
    wrong = [{**row, "text": "nothing of the kind"} for row in rows]
    assert benchmark.score(folder, wrong).headline.value == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_answer_to_everything_scores_low(root, name):
    benchmark = benchmarks.get(name)
    answers = Counter(str(answer).lower() for answer in gold(name, root / benchmark.folder / "mini").values())
    assert answers.most_common(1)[0][1] <= 0.42 * sum(answers.values()), answers.most_common(3)


@pytest.mark.parametrize("name", ["mmbench", "mmbench_cn"])
def test_rotations_are_whole_and_refer_to_an_image(root, name):
    rows = {int(row["index"]): row for row in table(name, root / benchmarks.get(name).folder / "mini")}
    for index, row in rows.items():
        base = rows[index % 1_000_000]
        options = [row[c] for c in "ABCD" if row[c]]
        assert sorted(options) == sorted(base[c] for c in "ABCD" if base[c])
        assert row[row["answer"]] == base[base["answer"]]
        image = rows[int(row["image"])]["image"] if row["image"].isdigit() else row["image"]
        assert Image.open(io.BytesIO(base64.b64decode(image))).size == (336, 336)
    groups = Counter(index % 1_000_000 for index in rows)
    assert all(number == sum(bool(rows[base][c]) for c in "ABCD") for base, number in groups.items())


def test_the_committed_sets_are_what_the_generator_makes(root):
    """Text files to the letter; of tables all but the images (encoders differ between Pillow versions)."""
    if not (COMMITTED / "gqa" / "mini").exists():
        pytest.skip("no playground folder beside the package")
    for file in root.rglob("*.json*"):
        assert (COMMITTED / file.relative_to(root)).read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
    for name in ("mmbench", "mmbench_cn"):
        ours, theirs = (table(name, place / name / "mini") for place in (root, COMMITTED))
        for row in (*ours, *theirs):
            row["image"] = row["image"] if row["image"].isdigit() else ""
        assert ours == theirs


@pytest.mark.parametrize("name", NAMES + VIDEOS)
def test_every_committed_file_is_there_and_opens(name):
    benchmark = benchmarks.get(name)
    folder = COMMITTED / benchmark.folder / "mini"
    if not folder.exists():
        pytest.skip("no playground folder beside the package")
    paths = {q.image for q in benchmark.questions(folder) if isinstance(q.image, Path)}
    assert all(path.stat().st_size > 1000 for path in paths)
    for path in sorted(paths)[:2]:
        if path.suffix == ".jpg":
            assert Image.open(path).convert("RGB").size == (336, 336)


def test_all_sets_together_stay_small():
    """What is committed; predictions of somebody's runs may lie beside it."""
    if not COMMITTED.exists() or shutil.which("git") is None:
        pytest.skip("no playground folder beside the package, or no git to ask what belongs to it")
    tracked = subprocess.run(["git", "ls-files", "-z", "."], cwd=COMMITTED, capture_output=True, text=True)
    files = [COMMITTED / name for name in tracked.stdout.split("\0") if "/mini/" in name]
    if tracked.returncode or not files:
        pytest.skip("not a git checkout")
    assert sum(file.stat().st_size for file in files) < 15e6
