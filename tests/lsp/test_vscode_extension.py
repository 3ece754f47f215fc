"""What the extension for Visual Studio Code says of the language and the server; `make vsix` runs its own tests in node."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.lsp.server import PICTURE
from nasdsl.lsp.settings import Settings, read_settings
from nasdsl.syntax.lexer import RESERVED, WORDS
from nasdsl.syntax.parser import parse

FOLDER = Path(__file__).parents[2] / "editors" / "vscode"
SNIPPETS = json.loads((FOLDER / "snippets" / "nas.json").read_text())


def written(body: str | list[str]) -> str:
    """A snippet with what it proposes in its places."""
    text = body if isinstance(body, str) else "\n".join(body)
    given: dict[str, str] = {}
    for number, default in re.findall(r"\$\{(\d+):([^}]*)\}|\$\{\d+\|", text):
        given[number] = default
    for number, words in re.findall(r"\$\{(\d+)\|([^|]*)\|\}", text):
        given[number] = words.split(",")[0]
    text = re.sub(r"\$\{(\d+)[:|][^}]*\}|\$(\d+)", lambda m: given.get(m[1] or m[2], ""), text)
    return re.sub(r"\$(\d+)", lambda m: given.get(m[1], ""), text)  # in what is proposed


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_are_of_the_language(name: str) -> None:
    text = written(SNIPPETS[name]["body"])
    word = text.split()[0].partition("(")[0]
    assert SNIPPETS[name]["prefix"].startswith(word)
    if word == "decoder":
        assert check_source(Source("t", text)).problems == []
    elif word in ("repeat", "merge"):
        text = f"decoder d {{ fpn(width=64) {{ {text} }} }}"
    elif word in ("detector", "require"):
        text = f"decoder d {{ {text} }}"
    assert parse(Source("t", text)).problems == [], text


def test_the_grammar_has_the_words_of_the_language() -> None:
    grammar = (FOLDER / "syntaxes" / "nas.tmLanguage.json").read_text()
    listed = re.search(r"\(use\|([a-z|]+)\)", grammar)
    assert listed is not None
    assert {"use", *listed[1].split("|")} == set(RESERVED)
    for word in WORDS:
        assert word in grammar, word


def test_settings_are_those_of_the_server() -> None:
    properties = json.loads((FOLDER / "package.json").read_text())["contributes"]["configuration"]["properties"]
    assert {"nasdsl.backbone", "nasdsl.size"} <= set(properties)
    assert read_settings({name.removeprefix("nasdsl."): p["default"] for name, p in properties.items()}) == (Settings(), [])
    expected = Settings("mobilenet_v2", (240, 320))
    assert read_settings({"nasdsl": {"backbone": "mobilenet_v2", "size": "240x320"}}) == (expected, [])
    assert re.fullmatch(properties["nasdsl.size"]["pattern"], "240x320")


def test_the_picture_is_asked_for_by_its_name() -> None:
    assert f'sendRequest("{PICTURE}"' in (FOLDER / "src" / "extension.js").read_text()
