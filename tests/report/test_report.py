"""Summary tables from hand-written results, and pictures of kept tokens on the embedded model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.errors import BadData, ConfigurationError
from llava.report import __main__ as command
from llava.report import overlay, records, summary


def run(label, benchmark, score, seconds, **changes):
    name, _, keep = label.partition("-")
    asked = int(keep or 576)
    share = asked / 576
    return {
        "format": 1,
        "benchmark": benchmark,
        "title": benchmark.upper(),
        "split": "mini",
        "headline": {"name": "score", "unit": "", "value": score},
        "samples": {"scored": 10},
        "method": {"name": name, "label": label},
        "model": {"name": "nano", "weights_digest": "abc"},
        "accounting": {
            "asked": asked,
            "final": asked,
            "visual": 576,
            "mean_over_layers": 300.0,
            "cache_bytes": 8 * share,
            "cache_bytes_unpruned": 8,
            "flops_exact": share,
            "flops_exact_unpruned": 1,
        },
        "timings": {"total": {"median_s": seconds}},
        "device": "CPU",
        "dtype": "float32",
        "attention": "sdpa",
        "versions": {"torch": "2", "transformers": "5"},
        **changes,
    }


RUNS = [
    run("dart-64", "pope", 40.0, 0.25),
    run("none", "pope", 80.0, 1.0),
    run("none", "mme", 1000.0, 4.0),
    run("dart-288", "mme", 900.0, 1.0),
    run("dart-288", "pope", 72.0, 1.0),
]


def test_rows_go_from_large_to_small_and_averages_are_relative():
    header, rows = summary.table(RUNS)
    assert [row[:2] for row in rows] == [["none", "576"], ["dart", "288"], ["dart", "64"]]
    cells = {f"{row[0]}-{row[1]}": dict(zip(header, row, strict=True)) for row in rows}
    assert cells["dart-288"]["relative"] == "90.0 %"  # 900/1000 and 72/80
    assert cells["dart-288"]["speed-up"] == "2.00x"  # geometric mean of 4 and 1
    assert cells["dart-64"]["MME SCORE"] == "-" and cells["dart-64"]["relative"] == "50.0 %"
    assert cells["dart-288"]["kept"] == "288 of 576" and cells["dart-288"]["cache"] == "50 %"


@pytest.mark.parametrize(
    ("odd", "word"),
    [
        (run("dart-64", "mme", 1.0, 1.0, dtype="bfloat16"), "dtype"),
        (run("dart-64", "mme", 1.0, 1.0, samples={"scored": 9}), "questions"),
        (run("dart-64", "mme", 1.0, 1.0, model={"name": "nano", "weights_digest": "other"}), "weights"),
    ],
)
def test_runs_that_differ_in_more_than_the_method_are_refused(odd, word):
    with pytest.raises(ConfigurationError, match=f"mme: the runs differ in {word}"):
        summary.table([*RUNS, odd])


def test_mixed_budgets_under_one_label_are_refused():
    odd = run("dart-64", "mme", 1.0, 1.0)
    odd["accounting"] = {**odd["accounting"], "asked": 65}
    with pytest.raises(ConfigurationError, match="the budget differs"):
        summary.table([*RUNS, odd])


def test_the_command_reads_a_folder_and_writes_markdown_and_csv(tmp_path, capsys):
    for number, content in enumerate(RUNS):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    (tmp_path / "other.json").write_text("[1]")
    for name in ("table.md", "table.csv"):
        assert command.main(["summary", str(tmp_path), "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "table.md").read_text().splitlines()[2].startswith("| none | 576 | 576 of 576 |")
    with open(tmp_path / "table.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["method", "none", "dart", "dart"]
    assert "float32, sdpa attention" in capsys.readouterr().out


def test_nothing_to_read_and_other_versions_say_what_to_do(tmp_path):
    with pytest.raises(BadData, match="python -m llava.eval pope"):
        records.read(tmp_path)
    (tmp_path / "old.json").write_text(json.dumps({**RUNS[0], "format": 0}))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"(?s)broken.json cannot be read.*old.json has format 0"):
        records.read(tmp_path)


def test_dropped_patches_fade_and_kept_ones_stay():
    image = Image.new("RGB", (4, 4), (200, 0, 0))
    pixels = overlay.faded(image, [1], (2, 2))
    assert (pixels[:2, 2:] == (200, 0, 0)).all()
    assert (pixels[:2, :2] > 150).all() and (pixels[2:] > 150).all()


def test_a_picture_of_the_embedded_model(tmp_path):
    pytest.importorskip("matplotlib")
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(image)
    out = tmp_path / "new" / "kept.png"
    words = ["overlay", str(image), "--methods", "none,dart", "--keep", "64", "--max-new-tokens", "2"]
    assert command.main([*words, "--output", str(out)]) == 0
    assert Image.open(out).width > 400


def test_bad_options_of_the_picture_are_reported_together(capsys):
    assert command.main(["overlay", "x.png", "--keep", "0", "--output", "kept.doc"]) == 2
    assert capsys.readouterr().err.startswith("2 mistakes")
    assert command.main(["overlay", "x.png", "--methods", "dat"]) == 2
    assert "Did you mean 'dart'" in capsys.readouterr().err


def test_the_table_goes_between_the_marks_of_a_page(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps(RUNS[1]))
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- summary -->\nold\n<!-- end of summary -->\nafter\n")
    for _ in range(2):  # a second time changes nothing
        assert command.main(["summary", str(tmp_path), "--update", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("Before\n<!-- summary -->\n| method |") and text.endswith("<!-- end of summary -->\nafter\n")
    assert "old" not in text and text.count("| none |") == 1
    page.write_text("<!-- other -->\n<!-- end of other -->\n")
    assert command.main(["summary", str(tmp_path), "--update", str(page), "--mark", "other", "--no-times"]) == 0
    assert "speed-up" in text and "speed-up" not in page.read_text() and "| relative |" in page.read_text()
    page.write_text("no marks")
    assert command.main(["summary", str(tmp_path), "--update", str(page)]) == 2
    assert page.read_text() == "no marks" and "put them where the table goes" in capsys.readouterr().err


def test_the_readme_shows_the_committed_results():
    root = Path(__file__).parents[2]
    found = records.read(root / "docs" / "results" / "nano")
    assert summary.markdown(*summary.table(found)) in (root / "README.md").read_text(encoding="utf-8")
    raw = json.loads((root / "docs" / "results" / "bench" / "prefill-cpu-small-2880.json").read_text())
    dart = next(row for row in raw["rows"] if row["method"] == "dart")
    page = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    with_vision, alone = dart["flops_ratio_with_vision"], dart["flops_ratio"]
    for said in (
        f"{dart['speedup']['median']:.2f} times faster than unpruned",
        f"operations promise {with_vision:.2f}",
        f"alone {dart['llm_speedup']['median']:.2f} where they promise {alone:.2f}",
        f"{100 * dart['selection_share']:.2f} % of the unpruned prefill",
    ):
        assert said in page, said
