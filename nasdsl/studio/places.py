"""Places in a text as a browser counts them: in UTF-16 code units from its beginning."""

from __future__ import annotations

from bisect import bisect_left

from nasdsl.diagnostics import Span


class Places:
    """Offsets of one text.

    Args:
        text: the whole text.
    """

    def __init__(self, text: str) -> None:
        self._wide = [] if text.isascii() else [offset for offset, c in enumerate(text) if c > "\uffff"]

    def offset(self, offset: int) -> int:
        """The offset of a character in UTF-16 code units; characters outside of the basic plane have two."""
        return offset + bisect_left(self._wide, offset)

    def range_of(self, span: Span) -> dict[str, int]:
        """``{"from": …, "to": …}``, the end exclusive."""
        return {"from": self.offset(span.start), "to": self.offset(span.end)}
