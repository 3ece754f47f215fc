"""A page as text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

LOADS = {"src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset", "background", "ping", "manifest"}


class Page(HTMLParser):
    """The text of a page, its charts, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self._inside = ""
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        name = self.tags[-1][1].get("id") or "" if self.tags else ""
        if self._inside == "script" and name.startswith("spec-"):
            self.specs[name.removeprefix("spec-")] = json.loads(data)
        elif not self._inside:
            self.words.append(data)

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]

    def loaded(self) -> list[str]:
        """Addresses other than anchors and data."""
        found = [str(value) for _, attributes in self.tags for name, value in attributes.items() if name in LOADS]
        return [address for address in found if not address.startswith(("#", "data:"))]
