"""Resident memory of this process (pages in RAM), as the operating system counts it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

KIBIBYTE = 1024


class ResidentMemory:
    """How much the process grew at most since this object was made.

    On Linux the kernel's peak is reset first. Where that is impossible, the peak of the whole life of the process is
    all there is: growth that stays below an earlier peak is not seen, and `grown()` is then None.

    Args:
        folder: of the process in Linux's `/proc`.
    """

    def __init__(self, folder: Path = Path("/proc/self")):
        self.status = folder / "status"
        with contextlib.suppress(OSError):
            (folder / "clear_refs").write_text("5", encoding="ascii")  # 5: set the peak to what is resident now
        self.earlier_peak = self._peak()
        now = self._field("VmRSS")
        self.before = self.earlier_peak if now is None else now
        self.is_reset = now is not None and self.earlier_peak == now

    def grown(self) -> int | None:
        """Return the bytes that the process grew by at most; None if that cannot be told."""
        peak = self._peak()
        if peak is None or self.before is None or self.earlier_peak is None:
            return None
        if peak == self.earlier_peak and not self.is_reset:
            return None  # an earlier peak hides this one
        return peak - self.before

    def _peak(self) -> int | None:
        peak = self._field("VmHWM")
        return _life_peak() if peak is None else peak

    def _field(self, name: str) -> int | None:
        try:
            lines = self.status.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return None
        found = (line.split() for line in lines if line.startswith(f"{name}:"))
        return next((int(words[1]) * KIBIBYTE for words in found), None)


def _life_peak() -> int | None:
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIBIBYTE
