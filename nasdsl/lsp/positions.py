"""Offsets in a text and positions of the protocol: lines, and columns in units of the client's encoding."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from lsprotocol.types import Position, Range

from nasdsl.diagnostics import Span

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Lines:
    """The lines of a text.

    Lines end as the protocol says: with ``\\n``, ``\\r\\n`` or ``\\r``, and with no other character.

    Args:
        encoding: what columns count: ``utf-16`` (code units, the protocol's default), ``utf-8`` (bytes) or ``utf-32``
            (characters).
    """

    def __init__(self, text: str, encoding: str = "utf-16") -> None:
        self.text = text
        self.encoding = encoding
        ends = [(m.start(), m.end()) for m in _LINE_END.finditer(text)]
        self.starts = [0, *(end for _, end in ends)]
        self.ends = [*(start for start, _ in ends), len(text)]
        self._is_ascii = text.isascii()

    def position(self, offset: int) -> Position:
        """The position of a character; one within a line end is the end of its line."""
        line = bisect_right(self.starts, offset) - 1
        start = self.starts[line]
        end = min(offset, self.ends[line])
        return Position(line, end - start if self._is_ascii else self._units(self.text[start:end]))

    def offset(self, position: Position) -> int:
        """The character at a position; at the end of its line for a column behind it, and of the text for a line behind it."""
        if position.line >= len(self.starts):
            return len(self.text)
        start, end = self.starts[position.line], self.ends[position.line]
        if self._is_ascii:
            return min(start + position.character, end)
        left = position.character
        for offset in range(start, end):
            left -= self._units(self.text[offset])
            if left < 0:
                return offset
        return end

    def range(self, start: int, end: int) -> Range:
        return Range(self.position(start), self.position(end))

    def range_of(self, span: Span) -> Range:
        return self.range(span.start, span.end)

    def length(self, start: int, end: int) -> int:
        """Columns between two characters of a line."""
        return end - start if self._is_ascii else self._units(self.text[start:end])

    def _units(self, text: str) -> int:
        if self.encoding == "utf-16":
            return len(text) + sum(c > "\uffff" for c in text)
        return len(text.encode(errors="surrogatepass")) if self.encoding == "utf-8" else len(text)
