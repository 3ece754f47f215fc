"""Highlighters without a compiler: the Pygments lexer, against the scanner."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String
from zoo_files import ZOO

from nasdsl.diagnostics import Source
from nasdsl.syntax.highlighting import NasLexer
from nasdsl.syntax.lexer import WORDS, scan

ROOT = Path(__file__).parents[2]
FILES = [*ZOO, *sorted((ROOT / "genotypes" / "spaces").glob("*.nas")), ROOT / "grammars" / "prelude.nas",
         *sorted((ROOT / "tests" / "data" / "language").glob("*.nas"))]  # fmt: skip


def kinds(text: str) -> dict[int, tuple[object, str]]:
    """Kind and text of each token, by its first character."""
    return {start: (kind, value) for start, kind, value in NasLexer().get_tokens_unprocessed(text)}


def allowed(type: str) -> tuple[object, ...]:
    """The kinds that a token of the scanner may have."""
    if type in WORDS.values():
        return (Keyword,)
    return {
        "NAME": (Name, Keyword.Constant), "NUMBER": (Number,), "DURATION": (Number,), "SIZE": (Number,), "STRING": (String,),
        "COMPARE": (Operator,),
    }.get(type, (Punctuation, Operator))  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_tokens_are_those_of_the_scanner(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = kinds(text)
    assert "".join(value for _, value in found.values()) == text
    assert not [value for kind, value in found.values() if kind in Error]
    for token in scan(Source("t", text), []):
        kind, value = found[token.start]
        assert value == token.value, token.span
        assert any(kind in group for group in allowed(token.type)), (token, kind)
    comments = [value for kind, value in found.values() if kind in Comment]
    assert comments == [line[line.index("#") :] for line in text.splitlines() if "#" in line]


def test_names_by_where_they_stand() -> None:
    text = "op f(x, k=3) = conv(x, k=?(3 | 5))\nshared g(x) = f(x)\nlet shared = none\nrequire latency <= 15ms on torch at 8x8"
    found = {value: kind for kind, value in reversed(kinds(text).values()) if value.strip()}
    assert found["f"] is Name.Function
    assert found["k"] is Name.Attribute
    assert found["x"] is Name.Variable
    assert found["conv"] is Name.Function
    assert found["none"] is Keyword.Constant
    assert (found["latency"], found["torch"], found["on"]) == (Name.Builtin, Name.Builtin, Keyword)
    assert found["15ms"] is Number.Float


def test_pygments_finds_it() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pygments.lexers"]
    module, _, name = points["nas"].partition(":")
    assert getattr(import_module(module), name) is NasLexer
    assert NasLexer.analyse_text("decoder d {\n fpn(width=64) {") > NasLexer.analyse_text("class Decoder:")
