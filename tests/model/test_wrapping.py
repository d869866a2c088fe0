"""Wrapping methods on an instance, and taking the wrappers off."""

import inspect

from llava.model.wrapping import Wrappers


class Layer:
    def forward(self, hidden, scale=1):
        return hidden * scale


def doubled(original, *args, **kwargs):
    return 2 * original(*args, **kwargs)


def test_wrapped_and_given_back():
    layer, wrappers = Layer(), Wrappers()
    wrappers.wrap(layer, "forward", doubled)
    assert layer.forward(3, scale=5) == 30
    assert list(inspect.signature(layer.forward).parameters) == ["hidden", "scale"]  # generate() looks at it
    wrappers.unwrap_all()
    assert vars(layer) == {} and layer.forward(3) == 3


def test_an_attribute_that_was_there_comes_back():
    """accelerate puts its own forward on the instance."""
    layer, wrappers = Layer(), Wrappers()
    layer.forward = own = lambda hidden: hidden + 1
    wrappers.wrap(layer, "forward", doubled)
    wrappers.wrap(layer, "forward", doubled)
    assert layer.forward(1) == 8
    wrappers.unwrap_all()
    wrappers.unwrap_all()
    assert layer.forward is own
