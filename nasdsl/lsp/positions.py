"""Offsets in a text and positions of the protocol: lines, and columns in units of the client's encoding."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import Final

from lsprotocol.types import Position, Range

from nasdsl.diagnostics import Span

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_BLOCK: Final = 256
"""Characters in which units are counted anew; a line may be as long as the text, and have as many tokens."""


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
        blocks = (text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK))
        self._units_before = [0] if self._is_ascii else list(accumulate(map(self._units, blocks), initial=0))

    def position(self, offset: int) -> Position:
        """The position of a character; one within a line end is the end of its line."""
        line = bisect_right(self.starts, offset) - 1
        start = self.starts[line]
        return Position(line, self.length(start, min(offset, self.ends[line])))

    def offset(self, position: Position) -> int:
        """The character at a position; at the end of its line for a column behind it, and of the text for a line behind it."""
        if position.line >= len(self.starts):
            return len(self.text)
        start, end = self.starts[position.line], self.ends[position.line]
        return bisect_right(range(start, end + 1), self._before(start) + position.character, key=self._before) + start - 1

    def range(self, start: int, end: int) -> Range:
        return Range(self.position(start), self.position(end))

    def range_of(self, span: Span) -> Range:
        return self.range(span.start, span.end)

    def length(self, start: int, end: int) -> int:
        """Columns between two characters of a line."""
        return self._before(end) - self._before(start)

    def _before(self, offset: int) -> int:
        """Units of the text before a character."""
        if self._is_ascii:
            return offset
        block = offset // _BLOCK
        return self._units_before[block] + self._units(self.text[block * _BLOCK : offset])

    def _units(self, text: str) -> int:
        if self.encoding == "utf-16":
            return len(text.encode("utf-16-le", "surrogatepass")) // 2
        return len(text.encode(errors="surrogatepass")) if self.encoding == "utf-8" else len(text)
