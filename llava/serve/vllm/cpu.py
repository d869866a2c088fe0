"""One thing that vLLM's runner for CPUs (0.32) leaves out: asking a model that drops visual tokens for positions.

Its runner for GPUs sets `is_multimodal_pruning_enabled` when it has loaded a model; the one for CPUs has a `load_model`
of its own that does not, and would number the kept tokens wrongly without a word.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

FLAG = "is_multimodal_pruning_enabled"


def ask_for_positions() -> None:
    """Make runners for CPUs ask; elsewhere, or where they do, nothing changes."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    original = CPUModelRunner.initialize_kv_cache
    if getattr(original, FLAG, False):
        return

    @wraps(original)
    def initialize_kv_cache(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Called once the model is loaded, before the first prompt."""
        setattr(self, FLAG, getattr(self.get_model(), "supports_multimodal_pruning", False))
        return original(self, *args, **kwargs)

    setattr(initialize_kv_cache, FLAG, True)
    CPUModelRunner.initialize_kv_cache = initialize_kv_cache
