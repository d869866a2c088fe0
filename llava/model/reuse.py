"""What prompts about the same image share, kept for the next question: a store with a limit in bytes.

Three kinds of things are kept: the features of an image, what a method chose of it before the language model, and the
keys, values and hidden states of a prompt up to the end of its last image. They are found by content (a hash of the
pixels, the token ids and their positions), never by a name.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llava.errors import ConfigurationError

FEATURES, CHOSEN, PREFIX = "features", "chosen", "prefix"
KINDS = (FEATURES, CHOSEN, PREFIX)
DEFAULT_BYTES = 512 * 10**6
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Entry:
    """Something kept, and how many bytes its tensors have."""

    value: Any
    size: int


class Reuse:
    """A bounded store; what was not asked for the longest time leaves first.

    Give it to a method, `with DART(keep=64)(model, reuse=Reuse()): ...`, or to several: what does not depend on the
    method is shared. A model's weights must not change while something of it is kept (`clear()` forgets everything).

    Args:
        bytes: most bytes of tensors that are kept, on the model's device. What does not fit is computed anew.
        prefixes: whether prompts may share keys, values and hidden states; else only what the images become is kept.

    Raises:
        ConfigurationError: a negative limit.

    Attributes:
        notes: sentences that say what runs without reuse, and why.
    """

    def __init__(self, bytes: int = DEFAULT_BYTES, prefixes: bool = True):
        if bytes < 0:
            raise ConfigurationError(f"bytes={bytes} is negative: give a limit such as {DEFAULT_BYTES} (512 MB).")
        self.limit, self.prefixes = bytes, prefixes
        self.notes: list[str] = []
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._bytes = 0
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._evictions = 0
        self._models: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Reuse(bytes={self.limit})"

    def clear(self) -> None:
        """Forget everything that is kept; the counts go on."""
        self._entries.clear()
        self._bytes = 0

    def statistics(self) -> dict[str, Any]:
        """Return hits and misses by kind, evictions, entries, bytes now and the limit."""
        return {
            **{kind: {"hits": self._hits[kind], "misses": self._misses[kind]} for kind in KINDS},
            "evictions": self._evictions,
            "entries": len(self._entries),
            "bytes": self._bytes,
            "limit": self.limit,
        }

    def line(self) -> str:
        """One line for people."""
        parts = [f"{kind} {self._hits[kind]} of {self._hits[kind] + self._misses[kind]}" for kind in KINDS]
        return (
            f"reused: {', '.join(parts)}; {self._bytes / 1e6:.1f} of {self.limit / 1e6:.1f} MB, "
            f"{self._evictions} evicted"
        )

    # ----------------------------------------------------------------------------------------- used by the surgery

    def scope(self, model: Any) -> tuple[Hashable, ...]:
        """What separates the entries of models from each other, and those of one model in another state."""
        number = self._models.setdefault(model, len(self._models))
        weights = next(model.parameters())
        return number, str(weights.device), weights.dtype, model.config._attn_implementation

    def get(self, kind: str, key: Hashable) -> Any:
        """Return what is kept under a key, or None; counted as a hit or a miss."""
        entry = self._entries.get((kind, key))
        if entry is None:
            self._misses[kind] += 1
            return None
        self._hits[kind] += 1
        self._entries.move_to_end((kind, key))
        return entry.value

    def put(self, kind: str, key: Hashable, value: Any, size: int) -> bool:
        """Keep something of `size` bytes; others leave for it. Return whether it fits at all."""
        if not self.fits(size):
            return False
        self._drop((kind, key))
        while self._bytes + size > self.limit:
            self._drop(next(iter(self._entries)))
            self._evictions += 1
        self._entries[kind, key] = Entry(value, size)
        self._bytes += size
        return True

    def fits(self, size: int) -> bool:
        """Whether `size` bytes are within the limit."""
        return size <= self.limit

    def again(self, kind: str, times: int = 1) -> None:
        """Count hits of something that was looked up once for several prompts."""
        self._hits[kind] += times

    def note(self, sentence: str) -> None:
        """Say once what runs without reuse."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        self._bytes -= 0 if entry is None else entry.size


def digest(*parts: Any) -> bytes:
    """Return a hash of tensors (their values, shape and dtype) and of whatever else has a `repr` that says it all."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        if torch.is_tensor(part):
            host = part.detach().cpu().contiguous()
            found.update(f"{tuple(host.shape)}{host.dtype}".encode())
            found.update(host.flatten().view(torch.uint8).numpy().tobytes())
        else:
            said = part if isinstance(part, bytes) else repr(part).encode()
            found.update(f"{len(said)}:".encode() + said)
    return found.digest()


def size_of(*tensors: Tensor | None) -> int:
    """Bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
