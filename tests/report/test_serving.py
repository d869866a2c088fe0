"""What serving through vLLM costs and gains, as a table: differences calculated by hand, and the page that shows it."""

import json
import re
from pathlib import Path

import pytest

from llava.errors import BadData
from llava.report import __main__ as command
from llava.report import records, serving, summary
from llava.serve.vllm import settings
from tests.report.made_results import result

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/vllm.md").read_text(encoding="utf-8")
RUNS = [
    result("mme", "none", 1000.0),
    result("textvqa", "none", 80.0),
    result("mme", "dart-64", 900.0),
    result("textvqa", "dart-64", 60.0),  # relative: (90 + 75) / 2
    result("mme", "dart_features-64", 950.0),
    result("textvqa", "dart_features-64", 40.0),  # relative: (95 + 50) / 2
    result("mme", "divprune-128", 990.0),
    result("textvqa", "divprune-128", 80.0),
    result("mme", "fastv-64", 1.0),
]
THROUGHPUT = {
    "format": 1,
    "bench": "serving",
    "options": {"requests": 4, "new_tokens": 2, "image_size": 28, "repeats": 3, "dtype": "float32"},
    "environment": {"device": "CPU", "cpu_count": 2, "load_average": 0.25, "versions": {"vllm": "1", "torch": "2"}},
    "subject": {"model": "nano"},
    "rows": [
        {
            "label": "dart_features-64",
            "prompt_tokens": 88.0,
            "requests_per_second": 2.0,
            "tokens_per_second": 10.0,
            "speedup": {"median": 3.0, "low": 2.0, "high": 4.0, "repeats": 3},
        }
    ],
}


def test_differences_are_those_to_dart_at_the_same_budget():
    header, rows = summary.table(serving.chosen(RUNS), times=False, against="dart")
    cells = {f"{row[0]}-{row[1]}": dict(zip(header, row, strict=True)) for row in rows}
    assert set(cells) == {"none-576", "dart-64", "dart_features-64", "divprune-128"}  # vLLM cannot serve FastV
    features = cells["dart_features-64"]
    assert (features["MME SCORE"], features["TEXTVQA SCORE"]) == ("950.00 (+50.00)", "40.00 (-20.00)")
    assert features["relative"] == "72.5 % (-10.0)"
    for label in ("none-576", "dart-64", "divprune-128"):  # of the last there is no run of DART
        assert "(" not in "".join(cells[label].values())


def test_the_sentence_tells_what_is_left_of_the_unpruned_score():
    runs = [*RUNS, result("mme", "divprune-64", 800.0), result("textvqa", "divprune-64", 60.0)]  # (80 + 75) / 2
    told = serving.sentence(*summary.table(serving.chosen(runs), times=False, against="dart"))
    assert "at 64 tokens: inside the language model `dart` 82.5 %; before it `dart_features` 72.5 %" in told
    assert told.endswith("and at best `divprune` 77.5 %.")


def test_the_command_writes_both_tables_or_says_what_to_do(tmp_path, capsys):
    for number, content in enumerate(RUNS):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    measured, page = tmp_path / "throughput" / "serving.json", tmp_path / "page.md"
    measured.parent.mkdir()
    measured.write_text(json.dumps(THROUGHPUT))
    page.write_text(
        "<!-- accuracy -->\n<!-- end of accuracy -->\n<!-- throughput -->\nold\n<!-- end of throughput -->\n"
    )
    words = ["serving", "--results", str(tmp_path), "--throughput", str(measured), "--update", str(page)]
    readme = tmp_path / "readme.md"
    readme.write_text("<!-- served -->\n<!-- end of served -->\n")
    assert command.main([*words, "--sentence", str(readme)]) == 0
    assert "at best `dart_features` 72.5 %." in readme.read_text()
    text = page.read_text()
    assert "| 40.00 (-20.00) |" in text and "old" not in text
    assert "| dart_features-64 | 88 | 2.0 | 10 | 3.00x (2.00 to 4.00) |" in text
    assert "4 requests at once" in text and "load at the start 0.2)" in text
    page.write_text("<!-- accuracy -->\n<!-- end of accuracy -->\n")
    assert command.main(words) == 2
    assert page.read_text().count("\n") == 2 and "<!-- throughput -->" in capsys.readouterr().err


def test_results_of_other_methods_are_not_enough():
    with pytest.raises(BadData, match="dart_features"):
        serving.chosen([run for run in RUNS if run["method"]["name"] in ("none", "dart", "fastv")])


def test_the_page_shows_the_committed_results_of_all_methods_that_can_be_served():
    found = serving.chosen(records.read(ROOT / serving.Serving.results))
    served = settings.servable(serving.FAMILY)
    assert {run["method"]["name"] for run in found} == {"none", "dart", *served}
    assert summary.markdown(*summary.table(found, times=False, against=serving.INSIDE)) in PAGE
    measured = json.loads((ROOT / serving.Serving.throughput).read_text(encoding="utf-8"))
    assert summary.markdown(*serving.throughput(measured["rows"])) in PAGE and serving.setting(measured) in PAGE
    typed = re.findall(r"--method (\S+) --preset .* --output docs/results/nano-methods", PAGE)
    assert typed and all({"none", "dart", *served} == set(methods.split(",")) for methods in typed)
