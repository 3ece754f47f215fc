"""Formatter: text in the canonical layout, comments kept.

The layout is that of `nasdsl.syntax.printer`. Beyond the words, the author decides this:

- **Paragraphs.** Blank lines between two statements, sections, definitions or comments stay, as one; there are none at
  the beginning and end of a file or a body. Between two that stood on one line, the printer decides: text in the
  one-line form comes out as the printer prints it.
- **Comments** keep their words and their order. A comment after a token stays on the line of that token, two spaces
  after it; a comment on a line of its own keeps a line of its own, indented as what follows it. A comment before a comma,
  ``->``, ``|``, ``=``, ``:`` or ``{`` moves behind that token, since these never begin a line. Aligned comments do not
  stay aligned. A bracket that holds a comment is broken into lines, and so is a ``repeat``.
- **Order of arguments.** ``f(k=3, x)`` stays as it is.

``;``, an empty ``()`` and a byte-order mark are dropped; every line ends with one line feed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.syntax.layout import Layout, count_tokens
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import parse
from nasdsl.syntax.unparse import Comment, TrailingComment


def format_text(text: str, name: str = "<text>") -> str:
    """Format a text in the canonical layout. Formatting is idempotent; a text without tokens and comments becomes empty.

    Args:
        text: a whole file.
        name: its name in diagnostics.

    Raises:
        DiagnosticError: the text has syntax errors.
    """
    source = Source(name, text.removeprefix("\ufeff"))
    parsed = parse(source)
    if any(problem.severity == "error" for problem in parsed.problems):
        raise DiagnosticError(parsed.problems)
    return _CommentedLayout(source).file(parsed.file)


class _SourceComment(NamedTuple):
    """A comment of the source text.

    Attributes:
        own_line: no token stands before it on its line.
        blank_above: a blank line stands above it.
    """

    text: str
    own_line: bool
    blank_above: bool


class _CommentedLayout(Layout):
    """The layout with the comments and blank lines of a source without syntax errors.

    Tokens are numbered from 0 in the order of the text, without those that are not printed (``;`` and an empty ``()``):
    the layout writes them in exactly this order.

    Attributes:
        at: number of the next token.
        comments: comments before a token, by its number.
        blank: tokens with a blank line directly above.
        broken: tokens that do not stand on the line of the token before.
    """

    as_written = True

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.at = 0
        self.comments: dict[int, list[_SourceComment]] = {}
        self.blank: set[int] = set()
        self.broken: set[int] = set()
        self._read(source)
        self.commented = sorted(self.comments)

    def _read(self, source: Source) -> None:
        text = source.text
        tokens = [(token.type, token.start, token.end) for token in scan(source, [])]
        tokens.append(("END", len(text), len(text)))
        number = end = 0
        dropped = False
        for i, (type, start, stop) in enumerate(tokens):
            if "\n" in text[end:start] or "#" in text[end:start]:
                self._read_gap(text[end:start], number)
            end = stop
            following = tokens[i + 1][0] if i + 1 < len(tokens) else ""
            dropped = type == "SEMI" or (type == "LPAR" and following == "RPAR") or (dropped and type == "RPAR")
            if dropped:
                continue
            if type in _LINE_ENDERS and number in self.comments:
                self.comments[number + 1] = self.comments.pop(number)
            number += 1

    def _read_gap(self, gap: str, number: int) -> None:
        """Record the comments and line ends of the gap before token ``number``, or of a part of that gap."""
        lines = gap.split("\n")  # the first is the rest of the line of the token before
        if len(lines) > 1:
            self.broken.add(number)
        for i, line in enumerate(lines):
            comment = line.strip(" \t\r")
            if comment:
                found = _SourceComment(comment, i > 0, number in self.blank)
                self.comments.setdefault(number, []).append(found)
                self.blank.discard(number)
            elif 0 < i < len(lines) - 1:
                self.blank.add(number)

    def separate(self, indent: int, *, blank: bool = False, first: bool = False, last: bool = False) -> None:
        comments = self.comments.get(self.at, ())
        for i, comment in enumerate(comments):
            if i == 0 and self.lines and not comment.own_line:
                self.lines[-1] += f"  {comment.text}"
                continue
            if comment.blank_above and not first:
                self.lines.append("")
            self.lines.append(" " * indent + comment.text)
            first = False
        if self.at in self.broken or comments:
            blank = self.at in self.blank
        super().separate(indent, blank=blank, first=first, last=last)

    def with_comments(self, pieces: list[str]) -> list[str]:
        if self.has_no_comment(pieces):
            self.at += count_tokens(pieces)
            return pieces
        out: list[str] = []
        start = self.at
        for piece in pieces:
            if type(piece) is str:
                if self.at > start:  # `separate` has written those before the first token
                    for i, comment in enumerate(self.comments.get(self.at, ())):
                        out.append((Comment if comment.own_line or i else TrailingComment)(comment.text))
                self.at += 1
            out.append(piece)
        return out

    def has_no_comment(self, pieces: Sequence[str], skip: int = 1) -> bool:
        place = bisect_left(self.commented, self.at + skip)
        return place == len(self.commented) or self.commented[place] >= self.at + count_tokens(pieces)


_LINE_ENDERS = frozenset(("COMMA", "ARROW", "BAR", "EQUAL", "COLON", "LBRACE"))
"""Tokens that may end a line and never begin one: a comment before one of them moves behind it."""
