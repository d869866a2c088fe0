"""Turns, spreads and clocks of the measurements; no time is judged."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from llava.bench.timing import PartClock, Spread, TokenClock, ratios, take_turns
from llava.model.families import family_of
from tests import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("values", [[7.0], [5.0, 1.0], [5.0, 1.0, 2.0, 4.0, 3.0], [0.3, 9.0, 2.5, 2.5]])
def test_spread_is_the_median_and_the_quartiles(values):
    spread = Spread.of(values)
    assert [spread.low, spread.median, spread.high] == pytest.approx(np.percentile(values, [25, 50, 75]))
    assert spread.repeats == len(values)


def test_ratios_pair_the_repeats_of_one_round():
    assert ratios([2.0, 30.0], [1.0, 10.0]).median == 2.5


def test_runs_take_turns_and_warm_up_is_not_counted():
    order = []
    turns = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, CPU, repeats=2, warmup=1)
    assert order == ["a", "b"] * 3 and turns.complete
    assert [len(x) for x in turns.seconds.values()] == [2, 2]


def test_what_a_run_returns_is_read_after_the_clock_and_within_its_block(monkeypatch):
    events = []
    monkeypatch.setattr("llava.bench.timing.now", lambda device: events.append("clock") or len(events))

    @contextmanager
    def around(name):
        events.append(f"enter {name}")
        yield
        events.append("leave")

    def run():
        events.append("run")
        return lambda: events.append("read") or "value"

    turns = take_turns({"a": run}, CPU, repeats=1, warmup=0, around=around)
    assert events == ["enter a", "clock", "run", "clock", "read", "leave"]
    assert turns.values == {"a": ["value"]} and turns.seconds == {"a": [2]}


@pytest.mark.parametrize(("last", "rounds"), [(5, 2), (6, 3)])
def test_ctrl_c_keeps_whole_rounds(last, rounds):
    calls = []

    def run():
        if len(calls) == last:
            raise KeyboardInterrupt
        calls.append(None)

    turns = take_turns({"a": run, "b": run}, CPU, repeats=9, warmup=0)
    assert not turns.complete and {len(x) for x in (*turns.seconds.values(), *turns.values.values())} == {rounds}


def test_ctrl_c_before_a_counted_round_is_passed_on():
    def run():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_turns({"a": run}, CPU, repeats=1, warmup=0)


def test_a_token_clock_never_stops_a_generation():
    clock = TokenClock()
    assert not clock(torch.zeros(3, 2), None).any() and clock.steps() == []
    clock.times = [1.0, 1.5, 3.5]
    assert clock.steps() == [0.5, 2.0]


def test_a_part_clock_tells_prefill_from_decoding_and_leaves_no_trace():
    model, batch = tiny.build(), tiny.inputs(tiny.ONE)
    family = family_of(model)
    with PartClock(model, family) as clock:
        times = clock.begin()
        assert times.vision_seconds() == 0 and times.prefill_seconds() == 0
        tiny.generate(model, batch, n_new=3)
        assert len(times.language) == 3 and times.prefill_seconds() > 0 and times.vision_seconds() > 0
        assert clock.begin() is not times
    for owner in (family.body(model), family.decoder(model)):
        assert not {"forward", "get_image_features", "get_video_features"} & set(vars(owner))
