"""The theory on activations: pivots, distances and outputs of a tiny model against values computed another way."""

import csv
import math

import pytest
import torch

from llava.analysis import pivots, theory, theory_page
from llava.analysis.collect import run
from llava.methodlists import choices
from llava.reduction import DART, NoReduction
from tests import tiny

ONE_EACH = ((5, tiny.IMAGE, 7), (3, tiny.IMAGE, 9))


class Inputs(dict):
    """What a processor returns."""

    def to(self, device):
        return self


@pytest.fixture(scope="module")
def model():
    return tiny.build()


@pytest.fixture(scope="module")
def inputs():
    return Inputs(tiny.inputs(ONE_EACH))


@pytest.fixture(scope="module")
def hidden(model, inputs):
    """(B, N, D) hidden states that enter decoder layer 2, as transformers itself reports them."""
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True).hidden_states[2]


def test_what_enters_the_layer_is_handed_over_before_the_cut(model, inputs, hidden):
    for method in (NoReduction(), DART(keep=8)):
        for row, sample in enumerate(run(model, inputs, method, watch=2)):
            real = inputs["attention_mask"][row].bool()
            assert tiny.error(sample.entering, hidden[row, real]) < 1e-5
            assert sample.visual.tolist() == (inputs["input_ids"][row, real] == tiny.IMAGE).tolist()


def test_the_first_logits_are_those_of_the_model(model, inputs):
    with torch.no_grad():
        whole = model(**inputs).logits[:, -1]
    for sample, logits in zip(run(model, inputs, NoReduction()), whole, strict=True):
        assert tiny.error(sample.logits, logits) < 1e-4 and sample.kept.tolist() == list(range(16))


def test_pivots_are_the_tokens_of_the_largest_keys(model, inputs, hidden):
    method = pivots.watched(DART(keep=10, pivots_visual=2, pivots_text=3))
    watched, plain = (run(model, inputs, one) for one in (method, DART(keep=10, pivots_visual=2, pivots_text=3)))
    for one, other in zip(watched, plain, strict=True):
        assert one.kept.tolist() == other.kept.tolist()
    decoder = model.model.language_model
    layer = decoder.layers[1]
    with torch.no_grad():
        before = model(**inputs, output_hidden_states=True).hidden_states[1]
        ids = inputs["attention_mask"].cumsum(1) - 1
        cos, sin = decoder.rotary_emb(before, ids.clamp_min(0))
        keys = layer.self_attn.k_proj(layer.input_layernorm(before)).unflatten(-1, (2, 16))
        turned = torch.cat([-keys[..., 8:], keys[..., :8]], -1)
        norms = (keys * cos[:, :, None] + turned * sin[:, :, None]).abs().sum((2, 3))
    for row, marks in enumerate(method.seen[0]):
        visual = (inputs["input_ids"][row] == tiny.IMAGE).nonzero().squeeze(1)
        after = torch.arange(int(visual[-1]) + 1, inputs["input_ids"].shape[1])
        wanted = {int(part[i]) for part, n in ((visual, 2), (after, 3)) for i in norms[row, part].argsort()[-n:]}
        assert set(marks.nonzero().squeeze(1).tolist()) == wanted


def test_distances_and_changes_on_a_tiny_model(model, inputs, hidden):
    found = theory.measure(model, inputs, choices("dart,random", keep="6", layer=2), ["a", "b"])
    assert [(one.choice.title, one.image) for one in found] == [
        *(("dart", "a"), ("dart", "b"), ("random", "a"), ("random", "b"))
    ]
    samples = run(model, inputs, choices("random", keep="6")[0].method)
    whole = run(model, inputs, NoReduction())
    for row in range(2):
        one, real = found[2 + row], inputs["attention_mask"][row].bool()
        tokens = hidden[row, real].double().tolist()
        visual = (inputs["input_ids"][row, real] == tiny.IMAGE).nonzero().squeeze(1).tolist()
        kept = {visual[n] for n in samples[row].kept}
        left = [token for n, token in enumerate(tokens) if n in kept or n not in visual]
        slow = max(min(math.dist(x, r) for r in left) for x in tokens)
        assert one.bounds[theory_page.HIDDEN].distance == pytest.approx(slow, rel=1e-5)
        assert one.change == pytest.approx(float((samples[row].logits - whole[row].logits).norm()), rel=1e-4)
    for one in found:
        for bounds in one.bounds.values():
            assert bounds.holds(bounds.one) and bounds.holds(bounds.every) and bounds.holds(bounds.ranged)
        unit = one.bounds[theory_page.UNIT]
        assert unit.largest == pytest.approx(1) and unit.holds(unit.paper_every) and unit.holds(unit.paper_one)


def test_rank_correlation_by_hand():
    assert theory_page.rank_correlation([1, 2, 3, 4], [10, 20, 30, 50]) == pytest.approx(1)
    assert theory_page.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert theory_page.rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert (
        theory_page.rank_correlation([1, 2], [1, 2]) is None
        and theory_page.rank_correlation([1] * 3, [1, 2, 3]) is None
    )


def test_the_command(analyse, tmp_path):
    code, found, said, _ = analyse("theory", "--methods", "dart,fastv", "--keep", "12,6", "--limit", 4, "--layer", 1)
    assert code == 0 and "the paper's bound holds in" in (tmp_path / "out" / "theory.md").read_text() and "d_H" in said
    rules = {(row[0], row[1], row[2]) for row in found["rows"]}
    assert ("unit length", "every pivot", "dart") in rules and ("hidden states", "every pivot", "fastv") not in rules
    held = found["header"].index("holds")
    assert all(row[held] == 1 for row in found["rows"])
    assert len(found["output"]["rows"]) == 2 * 2 + 1
    with open(tmp_path / "out" / "theory_images.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 4 * 3


def test_methods_that_do_not_cut_once_are_refused(analyse):
    code, found, _, told = analyse("theory", "--methods", "dart,pyramiddrop,divprune")
    assert code == 2 and found is None and "pyramiddrop does not cut once" in told and "divprune does not" in told
