"""Throughput through vLLM: what is told before an engine starts, and the arithmetic; engines are tested elsewhere."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from llava.bench import __main__ as command
from llava.bench import serving
from llava.bench.timing import Turns


def test_mistakes_are_told_before_anything_starts(capsys):
    assert command.main(["serving", "--requests", "0", "--cache-gib", "0", "--output", "x.txt"]) == 2
    text = capsys.readouterr().err
    assert "3 mistakes" in text and "--requests 0" in text and "--cache-gib 0.0" in text and "x.txt" in text
    assert command.main(["serving", "--methods", "dart,divprune"]) == 2
    assert "acts inside the language model" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_how_to_get_it(capsys):
    assert command.main(["serving"]) == 2
    assert "scripts/vllm_test.sh" in capsys.readouterr().err


def test_rows_compare_rounds_with_the_unpruned_engine():
    def outputs(n_prompt):
        return [SimpleNamespace(prompt_token_ids=[0] * n_prompt, outputs=[SimpleNamespace(token_ids=[1] * 5)])] * 4

    seconds = {"none": [4.0, 8.0, 6.0], "dart_features-64": [2.0, 2.0, 2.0]}
    values = {"none": [outputs(600)] * 3, "dart_features-64": [outputs(88)] * 3}
    plain, pruned = serving.rows_of(4, Turns(seconds, values))
    assert plain["speedup"]["median"] == 1 and plain["prompt_tokens"] == 600
    assert pruned["method"] == "dart_features" and pruned["prompt_tokens"] == 88 and pruned["new_tokens"] == 5
    assert pruned["requests_per_second"] == 2 and pruned["tokens_per_second"] == 10
    assert pruned["speedup"]["median"] == 3  # of 2, 4 and 3


def test_the_environment_has_what_the_page_says_of_a_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="9.9"))
    found = serving._environment(0.25)
    assert found["load_average"] == 0.25 and found["versions"]["vllm"] == "9.9"
    assert {"device", "cpu_count", "when", "git_commit"} <= set(found)
