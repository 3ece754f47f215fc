"""The page in a browser, as a user sees it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from browser_page import PATIENCE


class Page:
    """The page at an address, with its console messages and requests.

    Its policy forbids evaluating strings, as Playwright's ``wait_for_function`` does: tests wait for elements.
    """

    def __init__(self, browser: Any, url: str, *, width: int = 1300, height: int = 850, scheme: str = "light") -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.open(url)

    def open(self, url: str) -> None:
        tab = self.tab = self.context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("dialog", lambda dialog: dialog.accept())
        tab.goto(url)
        self.ready()

    def ready(self) -> None:
        self.tab.wait_for_selector("html[data-compiled=yes]")
        self.tab.wait_for_selector("#view[data-drawn]")

    def close(self) -> None:
        """End, with nothing on the console and no request to elsewhere."""
        self.context.close()
        assert self.messages == [], self.messages
        foreign = [url for url in self.requests if not url.startswith((self.origin + "/", f"blob:{self.origin}/", "data:"))]
        assert foreign == []

    @property
    def text(self) -> str:
        lines = self.tab.locator(".cm-content > .cm-line").all_inner_texts()
        return "\n".join("" if line == "\n" else line for line in lines)

    def write(self, text: str) -> None:
        """Replace the text."""
        self.tab.locator(".cm-content").click()
        self.tab.keyboard.press("Control+a")
        self.tab.keyboard.insert_text(text)

    def undo(self) -> None:
        self.tab.locator(".cm-content").click()
        self.tab.keyboard.press("Control+z")

    def becomes(self, text: str) -> None:
        """Wait until this is the text."""
        end = time.monotonic() + PATIENCE / 1000
        while self.text != text and time.monotonic() < end:
            self.tab.wait_for_timeout(50)
        assert self.text == text

    def shown(self, selector: str, text: str) -> Any:
        """Wait for an element with a text."""
        found = self.tab.locator(selector, has_text=text).first
        found.wait_for()
        return found

    def status(self, text: str) -> None:
        self.shown("#findings-status", text)

    def drawn(self) -> int:
        """How many pictures have been drawn."""
        return int(self.tab.locator("#view").get_attribute("data-drawn") or 0)

    def redrawn(self, before: int) -> None:
        """Wait for a picture after the one of this number."""
        self.tab.wait_for_selector(", ".join(f'#view[data-drawn="{n}"]' for n in range(before + 1, before + 12)))

    def macs(self, part: str = "total") -> int:
        return int(self.tab.locator(f".tile.{part}").get_attribute("data-macs"))
