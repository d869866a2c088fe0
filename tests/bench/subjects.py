"""Tiny models of random weights to be measured, and stand-ins for methods."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch

from llava.bench import sizes
from llava.bench.options import ModelOptions, PromptOptions
from llava.bench.subject import build

TINY = sizes.Shape(layers=4, width=32, heads=2, kv_heads=2, ffn=48)


def subject(tokens=50, text=7, batch=1, shape=TINY, layers=None, **prompt):
    """A subject of a shape that is known as `tiny` for a moment; on the CPU, float32."""
    known = dict(sizes.SHAPES)
    sizes.SHAPES["tiny"] = shape
    try:
        model = ModelOptions(shape="tiny", device="cpu", layers=layers)
        return build(model, PromptOptions(tokens=tokens, text=text, batch=batch, **prompt))
    finally:
        sizes.SHAPES.clear()
        sizes.SHAPES.update(known)


class Broken:
    """A method under which the device has not enough memory."""

    name = "broken"

    def __call__(self, model):
        @contextmanager
        def pruning():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            yield SimpleNamespace(last=None)

        return pruning()
