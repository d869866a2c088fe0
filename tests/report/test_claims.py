"""The claims from hand-made results: what holds follows from the numbers, and nothing is said without results."""

import json

import pytest

from llava.report import __main__ as command
from llava.report.cells import Source
from llava.report.claims import TESTS, texts, verdicts
from llava.report.claims.verdict import FAILS, HOLDS, PARTLY, UNTESTED
from llava.report.store import Store
from tests.report.made_results import LAYERS, result, times, write

CRITERIA = ("attention_max", "attention_min", "k_norm_min", "v_norm_max", "v_norm_min", "random")


def outcomes(folder, *results, **files):
    write(folder, *results)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return verdicts(Store(Source(results=str(folder))))


def pope(**scores):
    """POPE results of methods at 64 tokens, the unpruned one at 100."""
    return [result("pope", "none", 100.0), *(result("pope", f"{name}-64", score) for name, score in scores.items())]


def test_without_results_nothing_is_judged(tmp_path, capsys):
    found = outcomes(tmp_path)
    assert set(found) == set(TESTS) == set(texts()) and {v.outcome for v in found.values()} == {UNTESTED}
    assert command.main(["claims", "--results", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "python -m llava.report claims" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("total", "prefill", "outcome"), [(2.0, 3.0, HOLDS), (2.0, 2.0, PARTLY), (1.1, 0.9, PARTLY), (0.9, 0.9, FAILS)]
)
def test_speed_up(tmp_path, total, prefill, outcome):
    whole = result("pope", "none", 100.0, timings=times(6.0, 3.0))
    pruned = result("pope", "dart-64", 99.0, timings=times(6.0 / total, 3.0 / prefill))
    found = outcomes(tmp_path, whole, pruned)
    assert found["1"].outcome == outcome and f"{total:.2f}x total, {prefill:.2f}x prefill" in found["1"].here
    assert found["2"].outcome == UNTESTED


def test_speed_up_of_a_bench_counts_too(tmp_path):
    row = {"questions": 9, "total_seconds": 1.0, "prefill_seconds": 0.5, "speedup_total": 2.1, "speedup_prefill": 4.0}
    row |= {"method": "dart", "accounting": {"final": 324}}
    bench = {"bench": "total", "environment": {"device": "GPU"}, "subject": {"model": "seven"}, "rows": [row]}
    found = outcomes(tmp_path, *pope(dart=98.0), bench=bench)
    assert found["1"].outcome == HOLDS and "4.00x prefill (seven, GPU" in found["1"].here


@pytest.mark.parametrize(("score", "outcome"), [(97.5, HOLDS), (96.5, FAILS)])
def test_drop_on_pope(tmp_path, score, outcome):
    assert outcomes(tmp_path, *pope(dart=score))["3"].outcome == outcome


def test_sparsevlm_costs_more_and_is_slower(tmp_path):
    whole, dart, sparse = pope(dart=98.0, sparsevlm=98.0)
    for one, seconds, flops in ((whole, 4.0, 1.0), (dart, 2.0, 0.128), (sparse, 2.5, 0.156)):
        one["timings"] = times(seconds, seconds / 2)
        one["accounting"] |= {"flops_paper": flops, "flops_paper_unpruned": 1.0}
    found = outcomes(tmp_path, whole, dart, sparse)["4"]
    assert found.outcome == HOLDS and "FLOPs +2.8 points, speed -20.0 %" in found.here


@pytest.mark.parametrize(("seconds", "outcome"), [(0.079, HOLDS), (0.081, FAILS)])
def test_time_of_the_selection(tmp_path, seconds, outcome):
    whole, dart = pope(dart=98.0)
    dart["accounting"]["selection_seconds"] = seconds
    assert outcomes(tmp_path, whole, dart)["5"].outcome == outcome


@pytest.mark.parametrize(("dart", "other", "outcome"), [(99, 95, HOLDS), (99, 98.5, PARTLY), (90, 91, FAILS)])
def test_averages_and_margins(tmp_path, dart, other, outcome):
    results = [
        result("pope", f"{name}-{n}", v) for name, v in (("dart", dart), ("tome", other)) for n in (192, 128, 64)
    ]
    found = outcomes(tmp_path, result("pope", "none", 100.0), *results)
    assert found["6"].outcome == outcome and f"192: {dart:.1f}, best other tome {other:.1f}" in found["6"].here
    assert found["7"].outcome == (HOLDS if dart == 99 else FAILS)


def criteria(random, lowest, importance):
    found = {"attention_max": 97.2, "attention_min": 97.0, "v_norm_max": lowest, "random": random}
    made = [result("pope", f"dart-128 criterion={name}", found.get(name, 97.0)) for name in CRITERIA]
    rivals = [result("pope", f"{name}-128", importance) for name in ("fastv", "sparsevlm")]
    return [result("pope", "none", 100.0), result("pope", "dart-128", 97.0), *made, *rivals]


@pytest.mark.parametrize(
    ("random", "lowest", "importance", "wanted"),
    [
        (96.5, 95.0, 94.0, (HOLDS, HOLDS, HOLDS)),
        (96.5, 94.0, 96.0, (PARTLY, FAILS, HOLDS)),
        (95.0, 95.0, 96.0, (FAILS, HOLDS, HOLDS)),
    ],
)
def test_pivot_criteria(tmp_path, random, lowest, importance, wanted):
    found = outcomes(tmp_path, *criteria(random, lowest, importance))
    assert tuple(found[number].outcome for number in ("8", "9", "10")) == wanted
    assert outcomes(tmp_path / "part", *criteria(random, lowest, importance)[:4])["9"].outcome == UNTESTED


@pytest.mark.parametrize(("share", "outcome"), [(0.45, HOLDS), (0.55, FAILS)])
def test_overlap(tmp_path, share, outcome):
    header = ["method", "other", "keep", "kept", "overlap", "standard deviation", "chance level"]
    rows = [
        ["dart v_norm_max", "dart k_norm_max", 128, 132, share, 0.1, 0.23],
        ["dart random", "fastv", 128, 1, 0.9, 0.1, 0.2],
    ]
    analysis = {"analysis": "overlap", "header": header, "rows": rows, "samples": 7}
    found = outcomes(tmp_path, *pope(), overlap=analysis)["11"]
    assert found.outcome == outcome and "(chance 23.0 %, 7 images" in found.here


HALF_WAY = LAYERS // 2  # as layers 15 to 20 of 32


def layers(late, empty):
    """POPE results at layer 2 and half way up with 64 tokens and with none."""
    gone = result("pope", f"dart-1 layer={HALF_WAY} keep=1 pivots_visual=0", empty)
    early = result("pope", "dart-1 layer=2 keep=1 pivots_visual=0", 10.0)
    for one in (gone, early):
        one["accounting"]["final"] = 0
    return [*pope(dart=50.0), result("pope", f"dart-64 layer={HALF_WAY}", late), gone, early]


@pytest.mark.parametrize(
    ("late", "empty", "outcome"), [(101.0, 99.0, HOLDS), (101.0, 90.0, PARTLY), (99.0, 90.0, FAILS)]
)
def test_late_layers(tmp_path, late, empty, outcome):
    found = outcomes(tmp_path, *layers(late, empty))["12"]
    assert found.outcome == outcome and f"after layer {HALF_WAY} of {LAYERS}" in found.here


def pivots(**scores):
    """Results by number of visual and text pivots, e.g. `p4_4=90.0`."""
    pairs = {name: name[1:].split("_") for name in scores}
    return [
        result("pope", f"dart-64 budget=exact pivots_visual={v} pivots_text={t}", scores[name])
        for name, (v, t) in pairs.items()
    ]


@pytest.mark.parametrize(("few", "many", "outcome"), [(80.0, 80.0, HOLDS), (95.0, 80.0, PARTLY), (95.0, 95.0, FAILS)])
def test_number_of_pivots(tmp_path, few, many, outcome):
    made = pivots(p1_0=few, p1_1=70.0, p4_4=90.0, p12_12=many, p8_0=10.0)  # the last is no half of each
    assert outcomes(tmp_path, result("pope", "none", 100.0), *made)["13"].outcome == outcome


@pytest.mark.parametrize(
    ("visual", "text", "outcome"), [(80.0, 80.0, HOLDS), (95.0, 80.0, PARTLY), (95.0, 95.0, FAILS)]
)
def test_source_of_pivots(tmp_path, visual, text, outcome):
    made = pivots(p8_0=visual, p0_8=text, p4_4=90.0, p1_1=10.0)  # the last are fewer
    assert outcomes(tmp_path, result("pope", "none", 100.0), *made)["14"].outcome == outcome


@pytest.mark.parametrize(("random", "outcome"), [(90.0, HOLDS), (80.0, PARTLY), (60.0, FAILS)])
def test_against_random_tokens(tmp_path, random, outcome):
    assert outcomes(tmp_path, *pope(random=random, fastv=70.0, sparsevlm=85.0))["15"].outcome == outcome


def test_the_page_shows_all_claims_and_their_sum(tmp_path, capsys):
    write(tmp_path, *pope(dart=99.0))
    assert command.main(["claims", "--results", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "claims.md").read_text()
    assert page.count("\n| ") == 2 + len(texts()) and page.count(" holds when ") == len(texts())
    assert "99.0 of 100.0: -1.00 % (10 questions) | **holds** |" in page and "neither prove nor refute" in page
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- claims -->\nsomething else\n<!-- end of claims -->\nafter\n")
    words = ["claims", "--results", str(tmp_path), "--output", str(tmp_path / "out"), "--update", str(readme)]
    assert command.main(words) == 0
    shown = readme.read_text()
    assert shown.startswith("before\n<!-- claims -->\nJudged on")
    assert "something else" not in shown and "holds when" not in shown
    assert "| 3 | POPE drops" in shown and shown.endswith("<!-- end of claims -->\nafter\n")
    content = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert [claim["number"] for claim in content["claims"]] == list(range(1, 18))
    assert f"{sum(c['outcome'] == HOLDS for c in content['claims'])} holds" in page
