"""Headless Chromium, and a page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120_000
"""Timeout in milliseconds; a page needs one or two seconds on an idle core."""

NO_BROWSER = "NO BROWSER: the report was not tested in one. Install Chromium: apt-get install chromium"


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


class Opened:
    """A page in a browser, with its console messages and requests."""

    def __init__(self, browser: Any, file: Path, scheme: str, width: int) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(file.as_uri())
        self.tab.wait_for_function("document.documentElement.dataset.ready === 'yes'")

    def count(self, selector: str) -> int:
        return int(self.tab.locator(selector).count())

    def check_chart_sizes(self, height: int) -> None:
        """Check that every chart is drawn, wider than 300 pixels and higher than `height`."""
        charts = self.tab.locator(".plot svg.marks").all()
        assert charts
        for chart in charts:
            box = chart.bounding_box()
            assert box is not None
            assert box["width"] > 300
            assert box["height"] > height
