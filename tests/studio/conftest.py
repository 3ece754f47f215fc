"""A browser and a page of the studio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "report"))  # browser_page

from browser_page import BROWSER, OPTIONS, PATIENCE  # noqa: E402


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, started by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need Playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")  # not that of the user
        made = playwright.chromium.launch(
            executable_path=BROWSER, args=list(OPTIONS), env={"HOME": str(profile)}, timeout=PATIENCE
        )
        yield made
        made.close()


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
