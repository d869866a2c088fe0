"""The command line's words for a model and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro

from llava.commandline import did_you_mean

EMBEDDED = "llava-nano"
"""What the model of this package is called."""


@dataclass(frozen=True)
class LoadOptions:
    """Which model, and how it is loaded."""

    model_path: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder or hub name of a checkpoint; default: the embedded llava-nano."""
    dtype: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """float32, float16, bfloat16 or auto (as stored); default: auto on a GPU, float32 on the CPU."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, mps, or auto to spread the layers over all GPUs; default: a GPU if there is one."""
    attn_implementation: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Attention kernel: sdpa, eager or flash_attention_2."""
    min_pixels: Annotated[int | None, tyro.conf.arg(metavar="COUNT")] = None
    """Smaller images are enlarged to so many pixels (Qwen-VL); default: what the checkpoint says."""
    max_pixels: Annotated[int | None, tyro.conf.arg(metavar="COUNT")] = None
    """Larger images are reduced to so many pixels (Qwen-VL); default: what the checkpoint says."""
    load_8bit: bool = False
    """Load in 8 bits (bitsandbytes, CUDA)."""
    load_4bit: bool = False
    """Load in 4 bits (bitsandbytes, CUDA)."""

    @property
    def shown_path(self) -> str:
        """The checkpoint as it was given, or the embedded model's name."""
        return self.model_path or EMBEDDED

    def words(self) -> list[str]:
        """Return the command line's words that choose the same."""
        said = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default:
                flag = f"--{option.name.replace('_', '-')}"
                said += [flag] if value is True else [flag, str(value)]
        return said

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is loaded."""
        found = []
        if self.load_8bit and self.load_4bit:
            found.append("--load-8bit and --load-4bit exclude each other: give one of them.")
        if self.dtype is None and self.attn_implementation is None:
            return found  # spares importing transformers
        from llava.model.placement import ATTENTION, DTYPES

        chosen = (
            ("--dtype", self.dtype, tuple(DTYPES)),
            ("--attn-implementation", self.attn_implementation, ATTENTION),
        )
        return found + [
            f"{flag} {value!r} is not known.{did_you_mean(value, known)} Known: {', '.join(known)}."
            for flag, value, known in chosen
            if value is not None and value not in known
        ]

    def load(self, device: str | None = None) -> tuple[Any, Any]:
        """Load the model; return it and its processor.

        Args:
            device: overrules the option (one of several processes has a device of its own).

        Raises:
            LlavaError: as `llava.load` does; or the family has no limits of pixels.
        """
        import llava
        from llava.model.placement import quantization

        model, processor = llava.load(
            self.model_path,
            device=device or self.device,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            quantize=quantization(self.load_8bit, self.load_4bit),
        )
        processor.configure(min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        return model, processor
