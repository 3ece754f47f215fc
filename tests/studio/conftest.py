"""A browser and a page of the studio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import browser  # noqa: F401  # the fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Any]:
    """Starts `nasdsl studio` in the test's folder, with arguments, and gives its address."""
    processes = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "nasdsl", "studio", "--no-browser", *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)
        process.stdout.close()
