"""Fixtures of the tests of the report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_searches import describe, make, progressive, rank


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of a complete plain search (``plain``) and of a progressive one (``progressive``)."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "plain", trials=120, strategy="ppo", objective="macs:2G,latency:25ms")
    rank(folder / "plain")
    describe(folder / "plain")
    progressive(folder / "progressive", 40)
    return folder
