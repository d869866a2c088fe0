"""The compiled path: the layers after the last cut, and every decoding step, as graphs of fixed sizes.

After pruning a layer computes for less time than Python needs to start it. Here the layers after the last cut run as
one compiled function on a prompt filled up to a bucket, and decoding as one compiled step on static caches whose
lengths differ from layer to layer. What cannot be compiled runs as without it, and the reason is told once.
"""

from llava.model.fast.options import Fast

__all__ = ["Fast"]
