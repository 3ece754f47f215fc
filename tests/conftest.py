"""What the tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the tests' own modules: random_decoders, name_free_weights, zoo_files

from zoo_files import ZOO  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _one_thread_a_worker() -> None:
    """Two workers with two torch threads each would fight over two cores."""
    if os.environ.get("PYTEST_XDIST_WORKER") and "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(params=ZOO, ids=lambda p: p.stem)
def zoo_path(request: pytest.FixtureRequest) -> Path:
    """Each decoder of the zoo in turn."""
    path: Path = request.param
    return path
