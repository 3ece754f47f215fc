"""Warnings that a text silences: ``# nas: allow NAS907`` on the line that they are about, or behind the last ``}``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nasdsl.diagnostics.diagnostic import Diagnostic
from nasdsl.diagnostics.span import Span

_ALLOW = re.compile(r"#[^\n]*?\bnas:\s*allow\s+(NAS\d{3}(?:[\s,]+NAS\d{3})*)")


def allowed_codes(text: str) -> frozenset[str]:
    """The codes that comments of a text allow."""
    return frozenset(code for found in _ALLOW.finditer(text) for code in re.findall(r"NAS\d{3}", found[1]))


def without_allowed(warnings: Iterable[Diagnostic], decoder: Span) -> list[Diagnostic]:
    """The warnings that no comment allows: neither on a line that they mark or refer to, nor at the end of the decoder."""
    warnings = list(warnings)
    if not warnings:
        return warnings
    everywhere = allowed_codes(_lines(Span(decoder.source, decoder.end, decoder.end)))
    return [w for w in warnings if w.code not in everywhere and w.code not in _codes_at(w)]


def _codes_at(warning: Diagnostic) -> frozenset[str]:
    spans = [warning.span, *(span for span, _ in warning.related)]
    if all("nas:" not in span.source.text for span in spans):
        return frozenset()
    return frozenset().union(*(allowed_codes(_lines(span)) for span in spans))


def _lines(span: Span) -> str:
    """The lines that a span touches."""
    text = span.source.text
    end = text.find("\n", max(span.start, span.end - 1))
    return text[text.rfind("\n", 0, span.start) + 1 : len(text) if end < 0 else end]
