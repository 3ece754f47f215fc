"""Formatting: what ``nasdsl fmt`` makes of the text, as edits of the lines that change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lsprotocol.types import DocumentFormattingParams, TextEdit

from nasdsl.diagnostics import DiagnosticError
from nasdsl.lsp.documents import Document, Documents
from nasdsl.syntax.formatter import format_text

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_SEPARATORS = re.compile(r"[\s,;]+")


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
    return [
        TextEdit(lines.range(places[first], places[last]), "".join(new[to_first:to_last]))
        for first, last, to_first, to_last in changes(old, new)
    ]


def changes(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Lines ``old[a:b]`` that become ``new[c:d]``, as (a, b, c, d).

    Formatting moves white space and separators, and nothing else, so lines at which as many other characters lie above are
    where both texts are at one place. Whatever is compared, the result is right; it takes a time in proportion to the texts.
    """
    above_old, above_new = _above(old), _above(new)
    common = [(at, above_new[count]) for count, at in above_old.items() if count in above_new]
    for (first, to_first), (last, to_last) in pairwise([*common, (len(old), len(new))]):
        while first < last and to_first < to_last and old[first] == new[to_first]:
            first, to_first = first + 1, to_first + 1
        while first < last and to_first < to_last and old[last - 1] == new[to_last - 1]:
            last, to_last = last - 1, to_last - 1
        if first < last or to_first < to_last:
            yield first, last, to_first, to_last


def _above(lines: Sequence[str]) -> dict[int, int]:
    """By the number of characters above, without white space and separators: the first line that has so many above it."""
    found = {0: 0}
    count = 0
    for at, line in enumerate(lines):
        found.setdefault(count, at)
        count += len(_SEPARATORS.sub("", line))
    return found
