"""What the tests of the search share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """So small a network gains nothing from more, and forked processes need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _workers_find_the_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started anew import `small_search` as well."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a search goes."""
    return tmp_path / "search"
