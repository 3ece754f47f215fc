"""Formatting: what ``nasdsl fmt`` makes of the text, as edits of the lines that change."""

from __future__ import annotations

import difflib
import re

from lsprotocol.types import DocumentFormattingParams, TextEdit

from nasdsl.diagnostics import DiagnosticError
from nasdsl.lsp.documents import Document, Documents
from nasdsl.syntax.formatter import format_text

_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def formatting(documents: Documents, document: Document, params: DocumentFormattingParams) -> list[TextEdit] | None:
    """Edits that format the text; None for one with syntax errors, which stays as it is."""
    lines = document.analysis.lines
    text = document.text
    try:
        formatted = format_text(text, document.analysis.source.name)
    except DiagnosticError:
        return None
    old = [text[start:end] for start, end in zip(lines.starts, [*lines.starts[1:], len(text)], strict=True) if start < end]
    new = _LINES.findall(formatted)
    places = [*lines.starts, len(text)]
    edits = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            edits.append(TextEdit(lines.range(places[i], places[j]), "".join(new[k:m])))
    return edits
