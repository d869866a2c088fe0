"""MiniCPM-V 2.6 as a module of our own, because transformers has none: slicing, tower, resampler, the whole model."""
