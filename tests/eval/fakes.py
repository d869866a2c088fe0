"""A model, a processor and a method that only pretend, so that the runner is tested without any network."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from llava.eval.benchmarks import get
from llava.eval.data import DataSet
from llava.eval.runner import LoadedModel, MethodRun


class FakeProcessor:
    family = "llava"
    lengths_vary = False

    def __init__(self, answer):
        self.answer = answer
        self.prompts = []

    def settings(self):
        return {}

    def prompt(self, text, n_images=1):
        return text

    def look_at(self, image):
        pass

    def __call__(self, prompts, images):
        assert all(len(sample) == 1 and sample[0].mode == "RGB" for sample in images)
        first = len(self.prompts)
        self.prompts += prompts
        return {"input_ids": torch.tensor([[7, 7, first + row] for row in range(len(prompts))])}

    def decode(self, ids):
        return [self.answer(self.prompts[int(row[0])]) for row in ids]


class FakeModel:
    device = torch.device("cpu")
    dtype = torch.float32
    config = SimpleNamespace(_attn_implementation="sdpa")

    def __init__(self, fail_at=None, error=None):
        self.batches = []
        self.fail_at, self.error = fail_at, error

    def generate(self, input_ids, stopping_criteria, do_sample, num_beams, **options):
        assert not do_sample and num_beams == 1
        if self.fail_at is not None and len(self.batches) >= self.fail_at:
            raise self.error
        self.batches.append(len(input_ids))
        stopping_criteria(input_ids, None)
        return torch.cat([input_ids, input_ids[:, -1:]], dim=1)


def report(samples):
    return SimpleNamespace(
        prompt=[600] * samples,
        visual=[576] * samples,
        newlines=[0] * samples,
        newlines_kept=[0] * samples,
        asked=[128] * samples,
        kept=[[132] * samples],
        final=[132] * samples,
        mean_over_layers=[150.0] * samples,
        flops_paper=[25] * samples,
        flops_paper_unpruned=[100] * samples,
        flops_exact=[20] * samples,
        flops_exact_unpruned=[100] * samples,
        reused=[0] * samples,
        flops_computed=[20] * samples,
        cache_bytes=1000 * samples,
        cache_bytes_unpruned=4000 * samples,
        selection_seconds=0.002 * samples,
    )


@dataclass(frozen=True)
class FakeMethod:
    keep: int = 128
    name = "fake"

    def __call__(self, model, **options):
        return FakePruning(model)


class FakePruning:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    @property
    def last(self):
        return report(self.model.batches[-1])


def gold_pope(prompt):
    return "Yes" if "dog" in prompt else "No"


def loaded(answer=gold_pope, **model_options):
    return LoadedModel(FakeModel(**model_options), FakeProcessor(answer), "models/fake-7b", "abc")


def method(keep=128):
    return MethodRun(FakeMethod(keep), f"fake-{keep}")


def dataset(root, name="pope", kind="mini"):
    return DataSet(get(name), root, kind)
