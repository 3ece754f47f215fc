"""Text to text in the canonical layout, with every comment kept.

The layout is that of `nasdsl.syntax.printer`; what the author decides besides the words is this:

- **Paragraphs.** A blank line between two statements, sections, definitions or comments stays, several become one; none
  stands at the beginning and end of a file or a body. Where two of them stood on one line, the blank lines of the printer
  are put between them: text in the one-line form comes out as the printer prints it.
- **Comments** keep their words and their order. One behind a token stays on the line of that token, two spaces behind
  it; one on a line of its own keeps a line of its own, indented as what follows it. A comment before a comma, ``->``,
  ``|``, ``=``, ``:`` or ``{`` moves behind it, since these never begin a line. Comments in one column are not kept so.
  A bracket that holds a comment is broken, and so is a ``repeat``.
- **Order of arguments.** ``f(k=3, x)`` stays as it is.

``;``, an empty ``()`` and a byte-order mark are dropped; a line ends with one line feed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import parse
from nasdsl.syntax.printer import (
    CLOSE,
    DEDENT,
    FILL,
    HANG,
    OPEN,
    SEAM,
    SHIFT,
    SPACE,
    WIDTH,
    Comment,
    Line,
    Mark,
    Pieces,
    TrailingComment,
)


def format_text(text: str, name: str = "<text>") -> str:
    """The text in the canonical layout. Formatting it again changes nothing; a text of nothing stays the empty text.

    Args:
        text: a whole file.
        name: what diagnostics call it.

    Raises:
        DiagnosticError: the text has syntax errors.
    """
    source = Source(name, text.removeprefix("\ufeff"))
    parsed = parse(source)
    if any(problem.severity == "error" for problem in parsed.problems):
        raise DiagnosticError(parsed.problems)
    return _Commented(source).file(parsed.file)


# ------------------------------------------------------------------------------------------ pieces to lines


def lines_of(pieces: Sequence[str], indent: int, hang: int = 4) -> list[str]:
    """One statement as lines; those that begin in no bracket go on ``hang`` columns further in."""
    flat = "".join(pieces)
    if indent + len(flat) <= WIDTH and not any(isinstance(piece, Comment) for piece in pieces):
        return [" " * indent + flat]
    forced = _groups_with_comments(pieces)
    lines: list[str] = []
    line, line_indent = " " * indent, indent
    groups = [(True, indent + hang, indent)]  # broken; indentation of its lines, and of the closing bracket
    space = ""
    after: tuple[int, int] | None = None  # a line end comes: indentation of the next token, and of comments before it
    for i, piece in enumerate(pieces):
        broken, inner, outer = groups[-1]
        if type(piece) is str:
            if after is None:
                line += space + piece
            else:
                lines.append(line)
                line_indent = after[0]
                line = " " * line_indent + piece
            after, space = None, ""
        elif piece is OPEN or piece is HANG:
            base, column = (line_indent, len(line) + len(space)) if after is None else (after[0], after[0])
            broken = broken and (i in forced or not _fits(pieces, i, WIDTH - column))
            groups.append((broken, base + (2 if piece is OPEN else 4), base))
        elif piece is CLOSE:
            groups.pop()
        elif isinstance(piece, Comment):
            after = after or (inner, inner)
            if isinstance(piece, TrailingComment):
                line += f"  {piece}"
            else:
                lines.append(line)
                line = " " * after[1] + piece
        elif piece is SPACE or not broken:
            space = str(piece)
        elif piece is DEDENT:
            after = outer, inner
        elif (piece is FILL or piece is SEAM) and _fits(pieces, i, WIDTH - len(line)):
            space = str(piece)
        else:
            after = inner, inner
    return [*lines, line]


def _fits(pieces: Sequence[str], start: int, room: int) -> bool:
    """Whether the group, or what follows the break, at ``start`` has room, with all up to the next possible line end."""
    depth, least = 0, int(pieces[start] is OPEN or pieces[start] is HANG)
    over = False
    for i in range(start, len(pieces)):
        piece = pieces[i]
        if piece is OPEN or piece is HANG:
            depth += 1
        elif piece is CLOSE:
            depth -= 1
            over = over or depth < least
        elif isinstance(piece, Comment) or (
            isinstance(piece, Mark) and piece is not SPACE and i > start and (over or depth == 0)
        ):
            return True
        room -= len(piece)
        if room < 0:
            return False
    return True


def _groups_with_comments(pieces: Sequence[str]) -> set[int]:
    """Where the groups begin that hold a comment."""
    stack: list[int] = []
    found: set[int] = set()
    for i, piece in enumerate(pieces):
        if piece is OPEN or piece is HANG:
            stack.append(i)
        elif piece is CLOSE:
            stack.pop()
        elif isinstance(piece, Comment):
            found.update(stack)
    return found


# ------------------------------------------------------------------------------------------- lines to a file


class Layout:
    """Writes a tree, token after token. `_Commented` adds what the tree does not hold."""

    as_written = False

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.definitions: list[_Definition] = []

    # What a text has beside its tree: nothing.

    def separate(self, indent: int, *, blank: bool = False, first: bool = False, last: bool = False) -> None:
        """Go on to the next statement, or with ``last`` to the end of a body; ``first``: nothing stands in the body yet.

        ``blank``: the canonical layout has a blank line here.
        """
        if blank and not first and not last:
            self.lines.append("")

    def dressed(self, pieces: list[str]) -> list[str]:
        """The pieces, with the comments between them."""
        return pieces

    def bare(self, pieces: Sequence[str], skip: int = 1) -> bool:
        """Whether no comment stands before any of these next tokens, the first ``skip`` aside."""
        return True

    # The canonical layout.

    def file(self, file: ast.File) -> str:
        before: ast.Definition | None = None
        for item in file.items:
            kin = before is not None and _family(item) == _family(before) not in ("block", "decoder")
            self.separate(0, blank=not kin, first=before is None)
            self.line(item, 0)
            before = item
        self.separate(0, first=before is None, last=True)
        self._align()
        return "\n".join([*self.lines, ""]) if self.lines else ""

    def line(self, node: Line, indent: int, hang: int = 4) -> None:
        """A statement or a definition, with its body."""
        pieces = Pieces(as_written=self.as_written)
        body = pieces.line(node)
        out = pieces.out
        if body is None:
            at = len(self.lines)
            self.lines += lines_of(self.dressed(out), indent, hang)
            if isinstance(node, ast.OpDef | ast.ChoiceDef) and len(self.lines) == at + 1:
                before_equal = next(i for i, piece in enumerate(out) if piece == "=" and out[i - 1] is SPACE)
                columns = len("".join(out[:before_equal]))
                self.definitions.append(_Definition(at, columns, len("".join(out)), _family(node)))
            return
        out += (SPACE, "{")
        if isinstance(node, ast.Repeat) and len(body) == 1 and not isinstance(body[0], ast.Repeat):
            inner = Pieces(as_written=self.as_written)
            inner.line(body[0])
            whole = [*out, SPACE, *inner.out, SPACE, "}"]
            if indent + sum(map(len, whole)) <= WIDTH and self.bare(whole):
                self.lines.append(" " * indent + "".join(self.dressed(whole)))
                return
        if not body and self.bare([*out, "}"], skip=_count(out)):
            self.lines += lines_of(self.dressed([*out, "}"]), indent)
            return
        self.lines += lines_of(self.dressed(out), indent)
        self.body(body, indent + 2)
        self.lines += lines_of(self.dressed(["}"]), indent)

    def body(self, body: Sequence[Line], indent: int) -> None:
        before: Line | None = None
        for node in body:
            section = isinstance(node, ast.Fpn | ast.Head) or isinstance(before, ast.Fpn | ast.Head)
            self.separate(indent, blank=section, first=before is None)
            self.line(node, indent, 0 if isinstance(node, ast.Tower) and node.label is None else 4)
            before = node
        self.separate(indent, first=before is None, last=True)

    def _align(self) -> None:
        """Put the ``=`` of definitions on neighbouring lines in one column."""
        for _, neighbours in groupby(
            enumerate(self.definitions), key=lambda entry: (entry[1].line - entry[0], entry[1].family)
        ):
            run = [definition for _, definition in neighbours]
            column = max(definition.columns for definition in run)
            if all(d.columns + SHIFT >= column and d.width + column - d.columns <= WIDTH for d in run):
                for line, columns, _, _ in run:
                    text = self.lines[line]
                    self.lines[line] = text[:columns].ljust(column) + text[columns:]


class _Definition(NamedTuple):
    """A definition on one line: which line, columns before its ``=`` and altogether, what it may be aligned with."""

    line: int
    columns: int
    width: int
    family: str


def _family(node: ast.Definition) -> str:
    """Definitions that stand below one another without a blank line have one family."""
    match node:
        case ast.OpDef():
            return "op"
        case ast.ChoiceDef():
            return "choice"
        case ast.Use():
            return "use"
        case ast.BlockDef():
            return "block"
        case ast.Decoder():
            return "decoder"


# ------------------------------------------------------------------------------ what the tree does not hold


class _Note(NamedTuple):
    """A comment: whether it has its line to itself, and a blank line above."""

    text: str
    own_line: bool
    blank: bool


class _Commented(Layout):
    """The layout, with the comments and paragraphs of a source that has no syntax errors.

    Tokens count from 0 in the order of the text, without those that are not printed (``;`` and an empty ``()``): the
    layout puts them out in just this order.
    """

    as_written = True

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.at = 0  # number of the next token
        self.notes: dict[int, list[_Note]] = {}  # before a token
        self.blank: set[int] = set()  # tokens with a blank line right above
        self.broken: set[int] = set()  # tokens with a line end somewhere between them and the token before
        self._read(source)
        self.noted = sorted(self.notes)

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
            if type in _BEHIND and number in self.notes:
                self.notes[number + 1] = self.notes.pop(number)
            number += 1

    def _read_gap(self, gap: str, number: int) -> None:
        """Enter what stands before token ``number``, or a part of that."""
        pieces = gap.split("\n")  # the first still belongs to the line of the token before
        if len(pieces) > 1:
            self.broken.add(number)
        for i, piece in enumerate(pieces):
            comment = piece.strip(" \t\r")
            if comment:
                note = _Note(comment, i > 0, number in self.blank)
                self.notes.setdefault(number, []).append(note)
                self.blank.discard(number)
            elif 0 < i < len(pieces) - 1:
                self.blank.add(number)

    def separate(self, indent: int, *, blank: bool = False, first: bool = False, last: bool = False) -> None:
        notes = self.notes.get(self.at, ())
        for i, note in enumerate(notes):
            if i == 0 and self.lines and not note.own_line:
                self.lines[-1] += f"  {note.text}"
                continue
            if note.blank and not first:
                self.lines.append("")
            self.lines.append(" " * indent + note.text)
            first = False
        if self.at in self.broken or notes:
            blank = self.at in self.blank
        super().separate(indent, blank=blank, first=first, last=last)

    def dressed(self, pieces: list[str]) -> list[str]:
        if self.bare(pieces):
            self.at += _count(pieces)
            return pieces
        out: list[str] = []
        start = self.at
        for piece in pieces:
            if type(piece) is str:
                if self.at > start:  # those before the first token stand above the statement
                    for i, note in enumerate(self.notes.get(self.at, ())):
                        out.append((Comment if note.own_line or i else TrailingComment)(note.text))
                self.at += 1
            out.append(piece)
        return out

    def bare(self, pieces: Sequence[str], skip: int = 1) -> bool:
        place = bisect_left(self.noted, self.at + skip)
        return place == len(self.noted) or self.noted[place] >= self.at + _count(pieces)


_BEHIND = frozenset(("COMMA", "ARROW", "BAR", "EQUAL", "COLON", "LBRACE"))
"""Tokens that end a line and never begin one: a comment before one of them goes behind it."""


def _count(pieces: Sequence[str]) -> int:
    """How many of the pieces are tokens."""
    return sum(type(piece) is str for piece in pieces)
