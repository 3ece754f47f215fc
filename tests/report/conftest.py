"""Fixtures of the tests of the reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browser_page import BROWSER, OPTIONS, PATIENCE


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
