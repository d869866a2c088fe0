"""What a report says about each cut: the tokens left, and what they were ranked by."""

import pytest
import torch

from llava.model.pruning import Pruning
from llava.reduction import registry
from llava.reduction.chain import Chain
from llava.reduction.divprune import DivPrune
from llava.reduction.fastervlm import FasterVLM
from llava.reduction.fastv import FastV
from llava.reduction.pyramiddrop import PyramidDrop
from tests import tiny
from tests.tiny import N_PATCHES

PYRAMID = PyramidDrop(layer_list=(2, 4), image_token_ratio_list=(0.5, 0.25))


@pytest.fixture(scope="module")
def model():
    return tiny.build("llava", "sdpa")


def run(model, method, batch, scores=True):
    with Pruning(method, model, scores=scores) as pruning, torch.no_grad():
        model(**batch)
    return pruning.last


def best(scores, count):
    """Ascending indices of the largest numbers; NaN never is one."""
    return scores.nan_to_num(-torch.inf).topk(count).indices.sort().values.tolist()


def test_fastv_shows_the_attention_of_the_last_token():
    """Against transformers' own attention maps; three samples, left padding, several images."""
    model, batch = tiny.build("llava", "eager"), tiny.inputs()
    report = run(model, FastV(keep=4), batch)
    with torch.no_grad():
        attention = model(**batch, output_attentions=True).attentions[1].mean(1)[:, -1]  # (B, N)
    (step,) = report.steps
    assert step.layer == 2 and step.score_name
    for row, images in enumerate(step.scores):
        columns = (batch["input_ids"][row] == tiny.IMAGE).nonzero().squeeze(1).split(N_PATCHES)
        for scores, own, left in zip(images, columns, step.indices[row], strict=False):
            assert torch.allclose(scores, attention[row, own], atol=1e-6)
            assert left.tolist() == best(scores, 4)


def test_every_cut_of_a_schedule_is_a_step(model):
    report = run(model, PYRAMID, tiny.inputs())
    assert [step.layer for step in report.steps] == report.cut_layers == [2, 4]
    first, second = report.steps
    for row, images in enumerate(report.indices):
        for number, last in enumerate(images):
            halves, scores = first.indices[row][number], second.scores[row][number]
            assert halves.tolist() == best(first.scores[row][number], 8)
            assert scores.isfinite().nonzero().squeeze(1).tolist() == halves.tolist()  # the others were gone
            assert second.indices[row][number].tolist() == best(scores, 4) == last.tolist()


def test_before_the_language_model_and_then_inside(model):
    """The second cut's numbers stand at the tokens' places in the whole image."""
    report = run(model, Chain(FasterVLM(keep=8), FastV(keep=3)), tiny.inputs())
    before, inside = report.steps
    assert (before.layer, inside.layer) == (0, 2) and before.score_name != inside.score_name
    for row, images in enumerate(report.indices):
        for number, last in enumerate(images):
            kept = before.indices[row][number].tolist()
            assert kept == best(before.scores[row][number], 8)
            assert inside.scores[row][number].isfinite().nonzero().squeeze(1).tolist() == kept
            assert inside.indices[row][number].tolist() == best(inside.scores[row][number], 3) == last.tolist()


def test_cls_attention_is_that_of_the_tower():
    model, batch = tiny.build("llava", "eager"), tiny.inputs(tiny.ONE)
    report = run(model, FasterVLM(keep=5), batch)
    with torch.no_grad():
        tower = model.model.vision_tower(batch["pixel_values"], output_attentions=True)
    block = tower.attentions[-2]  # the one that feeds the projector
    assert torch.allclose(report.steps[0].scores[0][0], block[0].mean(0)[0, 1:], atol=1e-6)


def test_methods_without_a_number_per_token_say_so(model):
    report = run(model, DivPrune(keep=5), tiny.inputs(tiny.ONE))
    (step,) = report.steps
    assert step.scores is None and step.score_name == "" and len(step.indices[0][0]) == 5


def test_nothing_is_noted_unless_asked_for(model):
    batch = tiny.inputs(tiny.ONE)
    for method in (FastV(keep=4), FasterVLM(keep=4)):
        report = run(model, method, batch, scores=False)
        assert [step.scores for step in report.steps] == [None]
        assert "steps" not in report.to_dict()


def test_nothing_cut_nothing_to_tell(model):
    assert run(model, FastV(keep=N_PATCHES), tiny.inputs(tiny.ONE)).steps == []
    assert run(model, FasterVLM(keep=N_PATCHES), tiny.inputs(tiny.ONE)).steps == []


@pytest.mark.parametrize("name", registry.names())
def test_looking_changes_nothing(model, name):
    """Every method keeps the same tokens when its scores are looked at, and the last step is what survives."""
    batch = tiny.inputs(tiny.ONE)
    cls = registry.get(name)
    options = {"keep": 6} if "keep" in cls.__dataclass_fields__ else {}
    if name in ("sparsevlm", "pyramiddrop", "mustdrop"):
        options["budget"] = "exact"
    try:
        plain = run(model, registry.create(name, **options), batch, scores=False)
    except registry.ConfigurationError as error:
        pytest.skip(f"not on this model: {error}")
    except Exception as error:
        if type(error).__name__ != "UnsupportedModel":
            raise
        pytest.skip(f"not on this model: {error}")
    shown = run(model, registry.create(name, **options), batch)
    assert plain.kept == shown.kept and torch.equal(plain.indices[0][0], shown.indices[0][0])
    assert [step.layer for step in shown.steps] == shown.cut_layers
    for step in shown.steps:
        assert step.scores is None or (step.scores[0][0].shape == (N_PATCHES,) and step.score_name)
    if shown.steps:
        assert torch.equal(shown.steps[-1].indices[0][0], shown.indices[0][0])
