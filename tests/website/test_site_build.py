"""The site, built strictly: no link leads nowhere, nothing is fetched from elsewhere, pages look as they do on GitHub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from nasdsl.cli import COMMANDS
from nasdsl.diagnostics.catalogue import CODES
from website import repository

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
WRITTEN = ["README.md", "CHANGELOG.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    before = set((ROOT / "docs").rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert set((ROOT / "docs").rglob("*")) == before, "building writes nothing into docs/"
    return folder


class Reader(HTMLParser):
    """The text and the elements of a page, without what the theme adds.

    The texts of links are left out too, as those of file names become titles; but for links that only the site has.
    """

    EMPTY = frozenset("area br col hr img input link meta source wbr".split())

    def __init__(self, inside: str | None = None) -> None:
        super().__init__()
        self.inside = inside
        self.depth = 0 if inside else 1
        self.skipped = 0
        self.text = ""
        self.elements: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes, target = (dict(attrs).get(name) or "" for name in ("class", "href"))
        is_link = tag == "a" and not re.match(r"(\.\./)*(commands|diagnostics|api)/", target)
        if tag == self.inside:
            self.depth += 1
        elif not self.depth:
            return
        elif self.skipped or is_link or tag in ("button", "nav", "script", "style") or "filename" in classes:
            self.skipped += tag not in self.EMPTY
        else:
            self.elements[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.depth -= 1
        elif self.depth and self.skipped:
            self.skipped -= tag not in self.EMPTY

    def handle_data(self, data: str) -> None:
        if self.depth and not self.skipped:
            self.text += "".join(re.sub(r"https?://[^\s)]+", "", data).split())  # addresses alone are links too


@pytest.mark.parametrize("path", WRITTEN)
def test_a_page_looks_as_on_github(path: str, site: Path) -> None:
    """Python-Markdown has rules of its own for lists, tables and code; CommonMark finds the same elements and words."""
    theirs, ours = Reader(), Reader("article")
    theirs.feed(MarkdownIt("commonmark").enable("table").render((ROOT / path).read_text(encoding="utf-8")))
    ours.feed((site / repository.site_path(path)).with_suffix(".html").read_text(encoding="utf-8"))
    counted = "h1 h2 h3 h4 ul ol li table tr td th pre strong em p img".split()
    assert {tag: ours.elements[tag] for tag in counted} == {tag: theirs.elements[tag] for tag in counted}
    assert ours.text == theirs.text


def test_pages_of_commands_diagnostics_and_names(site: Path) -> None:
    assert {p.stem for p in (site / "commands").glob("*.html")} == {"index", *(c.name for c in COMMANDS)}
    assert {p.stem for p in (site / "diagnostics").glob("*.html")} == {"index", *CODES}
    for code in CODES:
        page = re.sub(r"<[^>]*>", "", (site / "diagnostics" / f"{code}.html").read_text(encoding="utf-8"))
        assert f"[{code}]: " in page, "the message"
    interface = (site / "api" / "nasdsl.html").read_text(encoding="utf-8")
    assert 'id="nasdsl.Decoder.cost"' in interface
    assert "Exact multiply-accumulates and parameters of backbone, fpn and head" in interface


def test_texts_of_the_language_are_highlighted(site: Path) -> None:
    page = (site / "language.html").read_text(encoding="utf-8")
    assert page.count('class="language-nas') > 50
    assert re.search(r'<span class="k\w*">decoder</span>', page)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?(https?:)?//[^\"' >]+", text)
        fetched += re.findall(
            r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preconnect))[^>]*\bhref=[\"']?https?://[^>]*", text
        )
        assert not fetched, page
