"""The grammar is LALR(1) without conflicts; lark resolves shift/reduce conflicts silently, so its log is checked."""

from __future__ import annotations

import logging

import lark
import pytest

from nasdsl import resources
from nasdsl.syntax.parser import _NoLexer


def conflicts(grammar: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger=lark.logger.name):
        lark.Lark(grammar, parser="lalr", lexer=_NoLexer, keep_all_tokens=True, maybe_placeholders=False, debug=True)
    return [r.getMessage() for r in caplog.records if "Conflict" in r.getMessage() or "conflict" in r.getMessage()]


@pytest.fixture
def _heard() -> None:
    """Let pytest capture lark's log."""
    lark.logger.propagate = True


@pytest.mark.usefixtures("_heard")
def test_no_conflict(caplog: pytest.LogCaptureFixture) -> None:
    assert conflicts(resources.read("grammars", "nas.lark"), caplog) == []


@pytest.mark.usefixtures("_heard")
def test_a_conflict_would_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    assert conflicts("start: sum\nsum: NUMBER | sum PLUS sum\n%declare NUMBER PLUS", caplog)
