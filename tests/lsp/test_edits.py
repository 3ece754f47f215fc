"""A text that is edited has the findings and the names of one that is opened: what is kept between versions changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from edited_texts import texts, versions

from nasdsl.diagnostics import Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.settings import Settings
from nasdsl.semantics.files import read_source
from nasdsl.syntax.kept import KeptSyntax

TEXTS = texts()


def analysis(text: str, kept: KeptSyntax | None = None) -> Analysis:
    return Analysis(text, "t.nas", None, read_source, Settings(), "utf-16", kept)


def seen(found: Analysis) -> Any:
    """All findings, and what each name refers to."""

    def place(span: Span | None) -> Any:
        if span is None:
            return None
        assert span.source is found.source or span.source.name == "prelude.nas"
        return span.source.name, span.start, span.end

    def symbol(s: Any) -> Any:
        return s.kind, s.name, place(s.span), place(s.region), s.owner

    problems = [
        (p.code, place(p.span), p.message, p.label, p.help, p.fix, [(place(span), text) for span, text in p.related])
        for p in found.problems
    ]
    names = {
        start: (place(o.span), [symbol(s) for s in o.symbols], o.is_definition)
        for (source, start), o in found.names.occurrences.items()
        if source is found.source  # which bodies of the vocabulary are entered depends on what was checked before
    }
    visible = [symbol(s) for s in found.names.visible(found.source, len(found.text) // 2)]
    return problems, names, visible, [(t.type, t.start, t.end) for t in found.tokens]


@pytest.mark.parametrize("name", TEXTS)
def test_edits(name: str) -> None:
    kept = KeptSyntax()
    for text in versions(TEXTS[name], 11, 2):
        assert seen(analysis(text, kept)) == seen(analysis(text))


@pytest.mark.long
@pytest.mark.parametrize("name", TEXTS)
def test_many_edits(name: str) -> None:
    kept = KeptSyntax()
    for text in versions(TEXTS[name], 12, 25):
        assert seen(analysis(text, kept)) == seen(analysis(text))


def test_a_failed_check_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptSyntax()
    text = TEXTS["random 1"]
    with monkeypatch.context() as patch:
        patch.setattr("nasdsl.lsp.analysis.check_source", lambda *_, **__: 1 / 0)
        assert analysis(text, kept).problems == []
    assert seen(analysis(text, kept)) == seen(analysis(text))
