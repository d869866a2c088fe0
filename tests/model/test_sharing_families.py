"""Questions about known images on every family: the answers they get alone, and who shares what is said by name."""

import functools

import pytest
import torch

from llava import DART, NoReduction, Reuse, Uniform
from llava.errors import UnsupportedModel
from tests import tiny
from tests.families import TINY
from tests.model import media_reference as media
from tests.tiny import error

TOLERANCE = 3e-5
METHODS = {
    "none": NoReduction(),
    "dart": DART(keep=6, pivots_visual=2, pivots_text=2),
    "dart-visual-pivots": DART(keep=6, pivots_visual=2, pivots_text=0),
    "uniform": Uniform(keep=6),
}
# What runs without, and a word of the reason that is given.
NO_PREFIX = {"gemma3": "both directions"}
ENCODED_ANEW = {
    "llava_onevision": "tiled only where",
    "smolvlm": "in one piece",
    "idefics3": "in one piece",
    "minicpm_v": "in one row",
    "qwen3_vl": "earlier vision layers",
}
FOLDERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llava")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@functools.cache
def built(family):
    return TINY[family].build()


@pytest.fixture(scope="module", params=[*TINY, *FOLDERS])
def subject(request, tmp_path_factory):
    """Family, model, and two batches that differ in their last words only."""
    family = request.param
    if family in TINY:
        model, (first, _) = built(family), TINY[family].batch((0, 1))
    else:
        model, processor = media.load(media.write(tmp_path_factory.mktemp(family) / family, family))
        first = dict(media.batch_of(processor, (0, 1)))
    second = {**first, "input_ids": first["input_ids"].clone()}
    second["input_ids"][:, -2:] = torch.tensor([[11, 12], [13, 14]])
    return family, model, (first, second)


def generate(model, batch):
    """Greedy, without the placeholders that random weights would write: they would ask for more images."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id")
    visual = [getattr(model.config, name) for name in names if getattr(model.config, name, None) is not None]
    return tiny.generate(model, batch, 3, suppress_tokens=visual)


@pytest.mark.parametrize("name", METHODS)
def test_same_answers_as_without_reuse(name, subject):
    family, model, batches = subject
    method, reuse = METHODS[name], Reuse()
    try:
        with method(model) as pruning:
            expected = [generate(model, batch) for batch in batches]
            kept = [report.indices for report in pruning.reports]
    except UnsupportedModel as problem:
        pytest.skip(str(problem))
    with method(model, reuse=reuse) as pruning:
        found = [generate(model, batch) for batch in batches]
        reports = pruning.reports
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.sequences, other.sequences)
        assert max(map(error, one.logits, other.logits)) < TOLERANCE
    assert [[list(map(torch.Tensor.tolist, row)) for row in report.indices] for report in reports] == [
        [list(map(torch.Tensor.tolist, row)) for row in report] for report in kept
    ]
    statistics, notes = reuse.statistics(), " ".join(reuse.notes)
    kind = "chosen" if name == "uniform" else "features"
    if family in ENCODED_ANEW:
        assert ENCODED_ANEW[family] in notes
        assert statistics["bytes"] == 0
        return
    if family == "video_llava" and "calls its images otherwise" in notes:
        pytest.skip("transformers 5.17 calls its images otherwise: nothing is kept of them, and it is said")
    if (family, name) == ("internvl", "uniform"):
        assert "tiles" in notes
        return
    if family in NO_PREFIX:
        assert NO_PREFIX[family] in notes
        assert reports[1].reused == [0, 0]
    else:
        assert not notes
        assert all(reports[1].reused)
        assert statistics["prefix"] == {"hits": 2, "misses": 2}
    assert statistics[kind]["hits"] >= statistics[kind]["misses"] > 0
