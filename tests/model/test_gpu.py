"""The same survivors and logits on CUDA as on the CPU, for every method; skipped where there is no GPU."""

import dataclasses

import pytest
import torch

from llava.errors import UnsupportedModel
from llava.reduction import registry
from tests import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def create(name: str):
    known = {field.name for field in dataclasses.fields(registry.get(name))}
    return registry.create(name, **({"keep": 8} if "keep" in known else {}))


def skip_refused(name: str, model) -> None:
    try:
        create(name)(model)
    except UnsupportedModel as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_cuda_equals_cpu(name, kernel):
    model, batch = tiny.build("llava", kernel), tiny.inputs()
    skip_refused(name, model)
    with create(name)(model) as pruning:
        expected, chosen = model(**batch).logits, pruning.last.indices
    model = model.cuda()
    with create(name)(model) as pruning:
        logits = model(**{key: value.cuda() for key, value in batch.items()}).logits
    for ours, theirs in zip(pruning.last.indices, chosen, strict=True):
        assert [offsets.tolist() for offsets in ours] == [offsets.tolist() for offsets in theirs]
    torch.testing.assert_close(logits.cpu(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", registry.names())
def test_flash_attention_runs_in_bfloat16(name):
    pytest.importorskip("flash_attn")
    model = tiny.build("llava", "sdpa").to(torch.bfloat16).cuda()
    skip_refused(name, model)
    batch = {k: v.cuda().to(torch.bfloat16) if v.is_floating_point() else v.cuda() for k, v in tiny.inputs().items()}
    with create(name)(model):
        expected = model(**batch).logits
    model.set_attn_implementation("flash_attention_2")
    with create(name)(model):
        torch.testing.assert_close(model(**batch).logits, expected, atol=0.3, rtol=0.1)
