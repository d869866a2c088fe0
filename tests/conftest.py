"""Shared by all tests: one thread, and the folder of recorded material beside the repository."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of results recorded from official implementations."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"recorded results are not here: {folder}")
    return folder
