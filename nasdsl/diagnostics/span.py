"""Source texts and positions in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property, partial
from typing import ClassVar, NamedTuple, TypeAlias


class Source:
    """A text and its name.

    Attributes:
        name: what messages print before the line number: a path, ``<stdin>`` or ``<text>``.
        text: the whole text.
        offset: of the text in itself; see `Anchor`.
    """

    __slots__ = ("__dict__", "name", "text")

    offset: ClassVar[int] = 0

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    @property
    def source(self) -> Source:
        return self

    @cached_property
    def line_starts(self) -> list[int]:
        """Offset of the first character of each line, in characters."""
        starts = [0]
        find = self.text.find
        position = find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = find("\n", position + 1)
        return starts

    def line_text(self, line: int) -> str:
        """The text of a line (the first is 1), without its line end."""
        start = self.line_starts[line - 1]
        end = self.line_starts[line] if line < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    def span(self, start: int, end: int) -> Span:
        return Span(self, start, end)


class Moving:
    """A part of a text that is edited: what lies in it keeps its spans when the part moves.

    Attributes:
        source: the present version of the text.
        offset: where the part begins in it.
    """

    __slots__ = ("offset", "source")

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self.offset = offset


Anchor: TypeAlias = Source | Moving
"""What the offsets of a span count from: the text, or a part of it."""


class Span(NamedTuple):
    """A range of a source: offsets ``start`` (inclusive) and ``end`` (exclusive), in characters.

    Attributes:
        anchor: what the two offsets below count from.
        first, last: the offsets, from the anchor's on.
    """

    anchor: Anchor
    first: int
    last: int

    @property
    def source(self) -> Source:
        anchor = self[0]
        return anchor if type(anchor) is Source else anchor.source

    @property
    def start(self) -> int:
        return self[0].offset + self[1]

    @property
    def end(self) -> int:
        return self[0].offset + self[2]

    def __eq__(self, other: object) -> bool:
        """Whether two spans cover the same characters, whatever they count from."""
        if type(other) is not Span:
            return NotImplemented
        return self.source is other.source and self.start == other.start and self.end == other.end

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        offset = self[0].offset
        return hash((offset + self[1], offset + self[2]))

    def head(self, length: int) -> Span:
        """Its first characters, so many of them."""
        return Span(self[0], self[1], self[1] + length)

    def tail(self, length: int) -> Span:
        """Its last characters, so many of them."""
        return Span(self[0], self[2] - length, self[2])

    @property
    def line(self) -> int:
        """Line of the first character, counted from 1."""
        return bisect_right(self.source.line_starts, self.start)

    @property
    def column(self) -> int:
        """Column of the first character, counted from 1."""
        return self.start - self.source.line_starts[self.line - 1] + 1

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def __repr__(self) -> str:
        return f"<{self}>"


quick_span: Callable[[tuple[Anchor, int, int]], Span] = partial(tuple.__new__, Span)
"""Make a span of the tuple of its fields, in half of the time that ``Span(…)`` takes: a tree has one or two for each node."""
