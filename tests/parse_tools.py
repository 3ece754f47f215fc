"""Tokens of right texts, for tests that take texts apart."""

from __future__ import annotations

from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.syntax.lexer import Tok, scan


def tokens(text: str) -> list[Tok]:
    problems: list[Diagnostic] = []
    found = list(scan(Source("t.nas", text), problems))
    assert problems == []
    return found
