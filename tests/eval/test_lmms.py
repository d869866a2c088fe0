"""The lmms-eval plug-in: one of its tasks, offline, on small data, gives the answers of our own runner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llava.eval.__main__ import main
from tests.eval.small_data import read_lines, write_pope
from tests.model.qwen_vl_folder import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
TASK = """
task: small_pope
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.pope_doc_to_visual
doc_to_text: !function utils.pope_doc_to_text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 3, temperature: 0, do_sample: false}}
process_results: !function utils.pope_process_results
metric_list:
  - {{metric: pope_accuracy, aggregation: !function utils.pope_aggregate_accuracy, higher_is_better: true}}
lmms_eval_specific_kwargs:
  default: {{pre_prompt: "", post_prompt: "\\nAnswer the question using a single word or phrase."}}
"""


def test_the_entry_point_is_declared():
    declared = (REPOSITORY / "pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]\nllava_dart = "llava.eval.lmms:manifest"' in declared


@pytest.mark.slow
def test_its_pope_task_on_small_data_gives_our_answers(tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (pip install llava-dart[lmms])")
    import datasets
    from PIL import Image

    checkpoint = write_checkpoint(tmp_path / "tiny")
    pope = write_pope(tmp_path / "pope")
    questions = read_lines(pope / "llava_pope_test.jsonl")
    labels = [
        row
        for split in ("adversarial", "random", "popular")
        for row in read_lines(pope / "coco" / f"coco_pope_{split}.json")
    ]
    rows = [
        {
            "question_id": str(question["question_id"]),
            "question": label["text"],
            "answer": label["label"],
            "image": Image.open(pope / "val2014" / question["image"]),
        }
        for question, label in zip(questions, labels, strict=True)
    ]
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "data"))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "small_pope.yaml").write_text(TASK.format(data=tmp_path / "data"))
    (tasks / "utils.py").write_text("from lmms_eval.tasks.pope.utils import *\n")
    plugin = tmp_path / "plugin" / "declared-0.dist-info"  # as pip writes it when the package is installed
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 0\n")
    (plugin / "entry_points.txt").write_text("[lmms_eval.models]\nllava_dart = llava.eval.lmms:manifest\n")
    words = ["-m", "lmms_eval", "--model", "llava_dart", "--tasks", "small_pope", "--include_path", tasks]
    words += ["--model_args", f"pretrained={checkpoint},method=random,keep=3,options=count=int", "--batch_size", "4"]
    words += ["--device", "cpu", "--output_path", tmp_path / "out", "--log_samples"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{plugin.parent}",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
    }
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (tmp_path / "out").is_dir(), done.stdout[-2000:] + done.stderr[-4000:]  # its exit code is 0 even then
    samples = {row["doc_id"]: row for path in (tmp_path / "out").rglob("*samples*.jsonl") for row in read_lines(path)}
    theirs = [sample_text(samples[number]) for number in range(18)]

    monkeypatch.chdir(tmp_path)
    ours = ["pope", "--data", str(pope), "--model-path", str(checkpoint), "--method", "random", "--keep", "3"]
    assert main([*ours, "--set", "count=int", "--max-new-tokens", "3", "--answers-file", "a.jsonl"]) == 0
    assert theirs == [row["text"] for row in read_lines(tmp_path / "a.jsonl")]


def sample_text(sample):
    answer = sample["filtered_resps"]
    while isinstance(answer, list):
        (answer,) = answer
    return answer if isinstance(answer, str) else json.dumps(answer)
