"""What the sources of the page say of the language, the answers and the files of the package."""

from __future__ import annotations

import re
from pathlib import Path

from nasdsl.studio.messages import answer
from nasdsl.studio.server import HEADERS, PAGE_FILES
from nasdsl.syntax.lexer import RESERVED, WORDS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "editors" / "studio" / "src"
PAGE = ROOT / "nasdsl" / "studio" / "page"


def test_the_page_colours_the_words_of_the_language() -> None:
    text = (SOURCES / "language.js").read_text()
    listed = re.search(r'RESERVED =\s*"([a-z ]+)"', text)
    assert listed is not None
    assert set(listed[1].split()) == set(RESERVED)
    for word in set(WORDS) - set(RESERVED):
        assert f'"{word}"' in text, word


def test_the_page_asks_what_is_answered() -> None:
    asked = {kind for path in SOURCES.glob("*.js") for kind in re.findall(r'kind: "(\w+)"', path.read_text())}
    server = {"session", "open", "changes", "save"}
    assert asked >= server | {"start", "check", "format", "source", "zoo", "explain"}
    for kind in asked - server:
        assert "there is no request" not in str(answer({"kind": kind}).get("error")), kind


def test_every_file_of_the_page_is_served_and_no_other() -> None:
    assert {name for name, _ in PAGE_FILES.values()} == {path.name for path in PAGE.iterdir()}
    html = (PAGE / "index.html").read_text()
    loaded = set(re.findall(r'(?:src|href)="([^"#]+)"', html)) | set(
        re.findall(r'new URL\("([^"]+\.js)"', _script("picture.js"))
    )
    assert loaded <= set(PAGE_FILES)


def test_the_page_names_no_address_elsewhere() -> None:
    """What it loads is beside it; the policy holds that in a browser, and this when a package brings an address."""
    assert re.findall(r"https?:", HEADERS["Content-Security-Policy"]) == []
    assert "http" not in (PAGE / "index.html").read_text().replace("http://www.w3.org/2000/svg", "")
    assert "@import" not in (PAGE / "page.css").read_text()
    assert "url(" not in re.sub(r"url\(\"?data:", "", (PAGE / "page.css").read_text())


def _script(name: str) -> str:
    return (SOURCES / name).read_text()
