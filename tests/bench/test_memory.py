"""Peak memory and cache bytes: counts against a count by hand, resident memory against made-up files of the kernel."""

import json
from types import SimpleNamespace

import pytest
import torch

from llava.bench import __main__ as command
from llava.bench import memory
from llava.bench.memory import Finding, Memory, collect, examine, held_bytes
from llava.bench.options import ModelOptions
from llava.bench.resident import ResidentMemory
from llava.reduction import registry
from tests.bench.subjects import Broken, subject

COLUMN = 2 * 32 * 4  # keys and values of 32 float32 numbers


def test_the_cache_in_four_ways():
    row = examine(subject(49, batch=2), registry.create("fastv", keep=9), new_tokens=3).row
    by_hand = 2 * (2 * 56 + 2 * 16) * COLUMN  # two samples; two of four layers see 56 columns, two 16
    assert row["cache_bytes"] == row["cache_bytes_from_counts"] == row["cache_bytes_held"] == by_hand
    assert row["cache_bytes_unpruned"] == 2 * 4 * 56 * COLUMN
    assert row["cache_bytes_at_end"] == by_hand + 2 * 4 * 2 * COLUMN  # two tokens were read again, in four layers
    assert row["cache_bytes_freed"] is None and "process" in row["peak_means"]
    assert row["peak_tensor_bytes"] > by_hand


def test_a_part_of_a_larger_tensor_holds_all_of_it():
    keys = torch.zeros(1, 2, 10, 4)
    layer = SimpleNamespace(keys=keys[:, :, :3], values=torch.zeros(1, 2, 3, 4))
    assert held_bytes(SimpleNamespace(layers=[layer, layer])) == 4 * (80 + 24)


def kernel(folder, resident, peak):
    (folder / "status").write_text(f"Name:\tpython\nVmHWM:\t{peak} kB\nVmRSS:\t{resident} kB\n")


def test_growth_of_the_resident_memory(tmp_path):
    kernel(tmp_path, 100, 100)
    memory = ResidentMemory(tmp_path)
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert memory.grown() == 0
    kernel(tmp_path, 120, 170)
    assert memory.grown() == 70 * 1024


def test_an_earlier_peak_that_cannot_be_reset_hides_smaller_ones(tmp_path):
    kernel(tmp_path, 100, 400)
    memory = ResidentMemory(tmp_path)
    assert memory.grown() is None
    kernel(tmp_path, 100, 450)
    assert memory.grown() == 350 * 1024


def test_without_the_kernels_files_only_a_new_peak_is_seen(tmp_path, monkeypatch):
    peaks = iter([1000, 1000, 1600])
    monkeypatch.setattr("llava.bench.resident._life_peak", lambda: next(peaks))
    memory = ResidentMemory(tmp_path / "nowhere")
    assert memory.grown() is None and memory.grown() == 600


def test_one_after_the_other_until_ctrl_c(capsys):
    def once(method):
        if method == "c":
            raise KeyboardInterrupt
        return Finding({}, refused="no tiles") if method == "b" else Finding({"method": method})

    findings, complete = collect({"a": "a", "b": "b", "c": "c", "d": "d"}, once)
    assert list(findings) == ["a", "b"] and not complete
    assert "b is left out: no tiles" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        collect({"c": "c"}, once)


def test_what_does_not_fit_or_cannot_work():
    small = subject(16)
    row = examine(small, Broken(), new_tokens=2).row
    assert (row["method"], row["status"]) == ("broken", "out of memory") and "3 GiB" in row["reason"]
    assert "outside the model" in examine(small, registry.create("random", keep=4, layer=9), 2).refused


def test_a_process_says_what_it_found_or_why_it_could_not(monkeypatch, tmp_path):
    heard = []
    ignored = []
    monkeypatch.setattr(memory.signal, "signal", lambda *words: ignored.append(words))
    monkeypatch.setattr(memory, "build", lambda model, prompt: subject(16))
    sender = SimpleNamespace(send=heard.append)
    memory._child(sender, Memory(new_tokens=2), registry.create("none"))
    assert heard[0].row["status"] == "ok" and "visual tokens" in heard[0].title and heard[0].facts["model"] == "tiny"
    assert ignored
    monkeypatch.undo()
    monkeypatch.setattr(memory.signal, "signal", lambda *words: None)
    options = Memory(model=ModelOptions(model_path=str(tmp_path / "nowhere")))
    memory._child(sender, options, registry.create("none"))
    assert "nowhere" in heard[1].refused


def test_a_process_that_was_killed(monkeypatch):
    """The system ends a process that takes too much memory; nothing is heard from it."""
    monkeypatch.setattr(memory.multiprocessing, "get_context", lambda kind: _Killed())
    row = memory.in_own_process(Memory(), registry.create("none")).row
    assert row["status"] == "out of memory" and "code -9" in row["reason"]


class _Killed:
    exitcode = -9
    started = SimpleNamespace(close=lambda: None)

    def Pipe(self, duplex):
        return self, self.started

    def Process(self, **options):
        return self

    def start(self):
        pass

    join = terminate = start

    def recv(self):
        raise EOFError


def test_the_command_writes_the_raw_result(tmp_path, monkeypatch, capsys):
    measured = subject(16)
    monkeypatch.setattr(memory, "in_own_process", lambda options, method: examine(measured, method, options.new_tokens))
    path = tmp_path / "memory.json"
    words = ["memory", "--methods", "divprune", "--keep", "4", "--new-tokens", "2", "--device", "cpu"]
    assert command.main([*words, "--output", str(path)]) == 0
    raw = json.loads(path.read_text())
    assert [row["method"] for row in raw["rows"]] == ["none", "divprune"] and raw["subject"]["prompt_tokens"] == 23
    assert raw["environment"]["dtype"] == "float32" and "peak MB" in capsys.readouterr().out
