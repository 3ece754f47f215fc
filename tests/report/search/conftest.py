"""What the tests of the report share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_searches import describe, make, progressive, rank


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain search with everything in it (``plain``), and a progressive one (``progressive``)."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "plain", trials=120, strategy="ppo", objective="macs:2G,latency:25ms")
    rank(folder / "plain")
    describe(folder / "plain")
    progressive(folder / "progressive", 40)
    return folder
