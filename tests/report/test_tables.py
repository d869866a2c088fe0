"""The tables from hand-made results: layout, averages, marks, refusals, and one tiny run of the embedded model."""

import csv
import json

from llava.methodoptions import MethodOptions
from llava.report import __main__ as command
from llava.report import runs
from llava.report.cells import Cell, Source, Target
from llava.report.store import Store
from llava.report.tables import tables
from llava.report.tables.lines import is_own, lines, stand_in
from tests.report.made_results import LAYERS, result, times, write


def made(tmp_path, number, *more, results=None):
    """Run `table NUMBER` and return exit code, Markdown rows by first cells, CSV rows and JSON."""
    words = ["table", number, "--results", str(results or tmp_path / "in"), "--output", str(tmp_path / "out"), *more]
    code = command.main(words)
    if code:
        return code, {}, [], {}
    out = tmp_path / "out" / f"table{number}"
    rows = {}
    label = ""
    for line in out.with_suffix(".md").read_text().splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            label = cells[0] or label
            rows.setdefault((label, cells[1]), []).append(cells[2:])
    with open(out.with_suffix(".csv"), newline="") as file:
        table = list(csv.DictReader(file))
    return code, rows, table, json.loads(out.with_suffix(".json").read_text())


def test_table_1_puts_ours_beside_the_papers(tmp_path, capsys):
    write(
        tmp_path / "in",
        result("pope", "none", 80.0),
        result("mme", "none", 1000.0, 20),
        result("pope", "dart-192", 72.0),
        result("mme", "dart-192", 1000.0, 20),
        result("pope", "random-192", 40.0),
    )
    code, rows, table, content = made(tmp_path, "1")
    assert code == 0
    header = rows["method", "from"][0]
    dart = dict(zip(header, rows["DART (this paper)", "llava-nano"][0], strict=True))
    mean = (2 * 576 + (LAYERS - 2) * 192) / LAYERS
    assert (dart["asked"], dart["kept"], dart["mean/layer"]) == ("192", "192 of 576", f"{mean:.1f}")
    assert (dart["POPE"], dart["MME"], dart["GQA"]) == ("72.0", "1000", "-")
    assert dart["Avg."] == "95.00 (over 2)"  # 90 and 100
    printed = dict(zip(header, rows["DART (this paper)", "paper"][0], strict=True))
    assert (printed["MME"], printed["Avg."], printed["printed"]) == ("1856", "98.82", "98.8")
    pdrop = dict(zip(header, rows["PDrop (2024.10)", "paper"][0], strict=True))
    assert (pdrop["Avg."], pdrop["printed"]) == ("96.92", "96.7 ≠")
    counts = dict(zip(header, rows["questions behind each cell", "llava-nano"][0], strict=True))
    assert (counts["POPE"], counts["MME"], counts["GQA"]) == ("10", "20", "-")
    chance = dict(zip(header, rows["Random tokens", "llava-nano"][0], strict=True))
    assert chance["Avg."] == "50.00 (over 1)"
    mine = [row for row in table if row["method"] == "dart" and row["from"] == "llava-nano"]
    assert mine[0]["pope"] == "72.0" and float(mine[0]["average"]) == 95 and mine[0]["cache_percent"][:5] == "33.33"
    assert content["questions"]["mme"] == 20 and content["artefact"] == "table1"
    said = capsys.readouterr().out
    assert "LLaVA-1.5-7B and LLaVA-Next-7B, the paper's models, were not run" in said and "table 1 --results" in said


def test_who_is_first_is_said_of_lines_with_the_same_benchmarks(tmp_path):
    scores = {"none": 100.0, "dart-64": 90.0, "fastv-64": 95.0, "random-64": 50.0}
    made_ = [result("pope", method, score) for method, score in scores.items()]
    write(tmp_path / "in", *made_, result("pope", "tome-192", 90.0))
    notes = made(tmp_path, "1")[3]["notes"]
    assert (
        "retain 64: of 3 lines with results of 1 benchmarks, FastV (ECCV24) keeps the largest part of the unpruned "
        "score (95.0 %); DART (this paper) 90.0 (2nd), Random tokens 50.0 (3rd)."
    ) in notes
    assert not any(note.startswith("retain 192") for note in notes)  # nothing to compare
    assert any("one answer is 10.0 points" in note for note in notes)


def test_the_papers_rows_come_in_the_papers_order():
    blocks = [(line.model, line.setting) for line in lines("1", Target("x", "p", "llava", "llava"))]
    assert [setting for _, setting in dict.fromkeys(blocks)] == [
        *("upper_bound", "retain_192", "retain_128", "retain_64", "upper_bound", "retain_320")
    ]


def test_a_model_fills_the_blocks_of_its_family_or_stands_in():
    llava, next_, qwen = (Target("x", "p", name, name) for name in ("llava", "llava_next", "qwen2_vl"))
    assert [stand_in("1", target) for target in (llava, next_, qwen)] == [
        "LLaVA-1.5-7B",
        "LLaVA-Next-7B",
        "LLaVA-1.5-7B",
    ]
    assert is_own("3", qwen) and not is_own("4", qwen) and not is_own("1", Target("n", None, "llava", "llava"))
    filled = [line for line in lines("1", next_, ("random",)) if line.cells]
    assert {line.model for line in filled} == {"LLaVA-Next-7B"} and filled[-1].method == "random"
    budgets = [line.cells["gqa"].options.reduction_ratio for line in lines("3", qwen) if line.method == "dart"]
    assert budgets == [0.667, 0.778, 0.889]


def test_methods_that_a_family_cannot_do_say_so():
    odd = [line for line in lines("1", Target("x", "p", "qwen2_vl", "qwen2_vl")) if line.why_empty]
    assert "tome" in {line.method for line in odd} and all(not line.cells for line in odd)


def test_table_6_stands_upright_with_the_usual_pivot_shared(tmp_path):
    write(
        tmp_path / "in",
        result("pope", "none", 80.0),
        result("pope", "dart-128", 76.0),
        result("pope", "dart-128 criterion=random", 60.0),
    )
    code, rows, _, content = made(tmp_path, "6")
    columns = rows["", "from"][0]
    average = dict(zip(columns, rows["**Avg.**", "llava-nano"][0], strict=True))
    assert average["DART, K-norm max"] == "95.00 (over 1)" and average["DART, random"] == "75.00 (over 1)"
    printed = dict(zip(columns, rows["**Avg.**", "paper, printed"][0], strict=True))
    assert printed["DART, random"] == "96.0 ≠" and printed["DART, V-norm min"] == "97.2"
    assert rows["POPE (10 questions)", "llava-nano"][0][0] == "80.0"
    assert len(content["lines"]) == 11  # the paper's ten, and random tokens


def test_table_2_times_what_the_runner_and_the_bench_measured(tmp_path):
    folder = write(
        tmp_path / "in",
        result("pope", "none", 80.0, timings=times(2.0, 1.5)),
        result("pope", "dart-64", 76.0, timings=times(1.0, 0.5)),
        result("pope", "fastv-64", 70.0, timings=times(4.0, 3.0), device="other"),
    )
    spread = {"median": 2.0, "low": 1.0, "high": 3.0, "repeats": 5}
    row = {"method": "dart", "final": [324], "asked": [320], "mean_over_layers": [648.0], "prefill_seconds": spread}
    bench = {
        "bench": "prefill",
        "options": {"shape": "large"},
        "environment": {"device": "GPU"},
        "rows": [
            {**row, "flops_ratio": 4.0, "cache_bytes": 5e6, "speedup": spread, "selection_seconds": spread},
            {"method": "fastv", "status": "out of memory"},
        ],
    }
    (folder / "bench.json").write_text(json.dumps(bench))
    (folder / "odd.json").write_text(json.dumps({**bench, "rows": [{}]}))
    code, rows, table, content = made(tmp_path, "2")
    header = rows["method", "from"][0]
    dart = dict(zip(header, rows["DART", "llava-nano, 10 questions"][0], strict=True))
    assert (dart["total time"], dart["tokens"], dart["POPE"], dart["cache MB"]) == ("10.0 s", "64", "76.0", "64.0")
    assert rows["DART", "llava-nano, 10 questions"][0][-2:] == ["2.00x", "3.00x"]
    assert rows["DART", "paper"][0][-2:] == ["1.99x", "2.99x"]
    assert rows["FastV", "llava-nano, 10 questions"][0][-2:] == ["-", "-"]
    assert any("FastV: no speed-up, it ran on other" in note for note in content["notes"])
    assert any("odd.json, which is no complete result" in note for note in content["notes"])
    alone = content["parts"]["llava.bench prefill"]
    assert [(cost["label"], cost["speedup_prefill"], cost["flops_exact_percent"]) for cost in alone] == [
        ("dart", 2.0, 25)
    ]
    assert any("15.46 %" in note for note in content["notes"]) and any("251.7 MB" in note for note in content["notes"])


def test_table_5_of_a_model_that_takes_no_videos(tmp_path):
    model = {"path": "some/gemma", "name": "gemma", "family": "gemma3", "weights_digest": "g"}
    write(tmp_path / "in", result("pope", "none", 1.0, model=model))
    code, rows, _, content = made(tmp_path, "5")
    assert code == 0 and content["notes"][0].startswith("gemma takes no videos")
    assert rows["VideoChat-7B", "paper"][0][-3:] == ["45.23", "2.53", "45.1 ≠ / 2.5"]


def video_result(name, method, score, metric="local_contains"):
    model = {"path": "some/video", "name": "video", "family": "video_llava", "weights_digest": "v"}
    stem = f"{name}-{method}"
    made_ = result(name, method, score, model=model, results_file=f"somewhere/{stem}.json")
    made_["headline"]["name"] = metric
    if method != "none":
        made_["method"]["options"]["keep"] = 0.5
    return made_


def test_table_5_names_the_local_metric_and_takes_the_judges(tmp_path):
    sets = ("tgif_qa", "msvd_qa", "msrvtt_qa")
    folder = write(
        tmp_path / "in",
        *(video_result(name, "none", 30.0 + 3 * n) for n, name in enumerate(sets)),
        *(video_result(name, "dart", 20.0) for name in sets),
    )
    for number, name in enumerate(sets):
        judged = {
            "headline": {"name": "gpt_accuracy", "value": 40.0},
            "metrics": [{"name": "gpt_score", "value": 2.0 + number}],
        }
        (folder / f"{name}-dart.judged.json").write_text(json.dumps(judged))
    code, rows, _, content = made(tmp_path, "5", "--model-path", "some/video")
    assert rows["video", "video"][0][-3:-1] == ["33.00", "-"]
    assert rows["video + DART", "video"][0][-3:-1] == ["40.00", "3.00"]
    assert any("local_contains (the gold answer's words" in note for note in content["notes"])
    assert content["lines"][-1]["metrics"] == {} and content["questions"]["tgif_qa"] == 10


def test_other_versions_are_marked(tmp_path, capsys):
    older = {"finished": "2025-01-01", "versions": {"llava": "1", "torch": "1.9", "transformers": "5"}}
    write(tmp_path / "in", result("pope", "none", 80.0, **older), result("pope", "dart-192", 72.0))
    _, rows, _, content = made(tmp_path, "1")
    assert ("Vanilla †", "llava-nano") in rows and ("DART (this paper)", "llava-nano") in rows
    assert any("1 results are of another version: torch 1.9" in note for note in content["notes"])


def test_mixed_budgets_and_mixed_questions_are_refused(tmp_path, capsys):
    odd = result("mme", "dart-192", 1000.0)
    odd["accounting"]["asked"] = 100
    write(tmp_path / "in", result("pope", "none", 80.0), result("pope", "dart-192", 72.0), odd)
    assert made(tmp_path, "1")[0] == 2
    assert "asked to keep different numbers of tokens (100, 192)" in capsys.readouterr().err
    write(tmp_path / "other", result("pope", "none", 80.0), result("pope", "dart-192", 72.0, 20))
    assert made(tmp_path, "1", results=tmp_path / "other")[0] == 2
    assert "results of different questions" in capsys.readouterr().err


def test_nothing_there_says_what_to_type(tmp_path, capsys):
    for number in ("1", "2", "3", "4", "5", "6"):
        assert made(tmp_path, number)[0] == 2
        said = capsys.readouterr().err
        assert f"python -m llava.report table {number} --results {tmp_path / 'in'} --run" in said
        assert "python -m llava.eval" in said


def test_a_model_without_results_is_not_fetched(tmp_path, capsys):
    assert made(tmp_path, "1", "--model-path", "some/where")[0] == 2
    assert "holds no results of some/where: add --run" in capsys.readouterr().err


def test_bad_words_are_told_together(tmp_path, capsys):
    assert command.main(["table", "9", "--more", "dat", "--limit", "0", "--benchmarks", "pop"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("4 mistakes") and "no table 9" in said and "Did you mean 'dart'" in said and "'pope'" in said
    assert command.main(["figure", "99", "--results", str(tmp_path)]) == 2
    assert "The paper has no figure 99: give one of 1, 2" in capsys.readouterr().err


def test_every_table_needs_results_that_can_be_run():
    target = Target("llava-nano", None, "llava", "llava", 8)
    made_ = {table.name: table.cells(target) for table in tables(("random", "divprune"))}
    assert list(made_) == [f"table{number}" for number in range(1, 7)]
    assert len(made_["table1"]) == 10 * (1 + 3 * 11) and len(made_["table3"]) == 7 * (1 + 3 * 4)
    assert all(cell.options.build("llava") for cells in made_.values() for cell in cells)


def test_what_is_missing_is_run_and_not_run_again(tmp_path, capsys):
    given = ["--results", str(tmp_path / "runs"), "--output", str(tmp_path), "--limit", "2", "--data", "mini"]
    assert command.main(["table", "2", *given, "--more", "", "--dry-run"]) == 0
    assert "Missing: 4 results, 8 questions." in capsys.readouterr().out
    source = Source(results=str(tmp_path / "runs"), run=True, limit=2, data="mini")
    dart = Cell("pope", MethodOptions(method="dart", preset="64"))
    broken = Cell("pope", MethodOptions(method="globalcom2", keep=0.1))  # needs tiles
    told: list[str] = []
    left_out = runs.complete(Store(source), [dart, broken], told.append)
    assert "2 results are missing, 4 questions." in told and "[1 of 2] pope dart-64" in told
    assert len(left_out) == 1 and left_out[0].startswith("globalcom2-0.1 was left out: ")
    told.clear()
    assert runs.complete(Store(source), [dart], told.append) == [] and told == ["Nothing is missing."]
    assert command.main(["table", "2", *given]) == 0
    assert "| DART | llava-nano, 2 questions | 68 | 64 |" in capsys.readouterr().out
