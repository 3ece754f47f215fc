"""Tokens and layout marks to lines: the canonical layout, without the comments of a source text.

`Layout` writes a tree; `nasdsl.syntax.formatter` extends it with the comments and blank lines of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

from nasdsl.syntax import ast
from nasdsl.syntax.unparse import (
    CLOSE,
    DEDENT,
    FILL,
    HANG,
    OPEN,
    SEAM,
    SPACE,
    Comment,
    Line,
    Mark,
    TrailingComment,
    Unparser,
)

WIDTH: Final = 120
"""Columns of a line, comments not counted."""

MAX_SHIFT: Final = 16
"""Most columns by which an ``=`` is moved to align it with its neighbours."""


def break_lines(pieces: Sequence[str], indent: int, hang: int = 4) -> list[str]:
    """Break one statement into lines. Continuation lines outside brackets are indented by ``hang`` more columns."""
    flat = "".join(pieces)
    if indent + len(flat) <= WIDTH and not any(isinstance(piece, Comment) for piece in pieces):
        return [" " * indent + flat]
    forced = _groups_with_comments(pieces)
    lines: list[str] = []
    line, line_indent = " " * indent, indent
    groups = [(True, indent + hang, indent)]  # open groups: broken?, indentation of its lines, of its closing bracket
    space = ""
    after: tuple[int, int] | None = None  # a line end is due: indentation of the next token, of comments before it
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
    """Whether the group, or what follows the mark, at ``start`` fits in ``room`` columns, up to the next possible line end."""
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
    """Indices at which the groups begin that hold a comment."""
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
    """Writes a tree in the canonical layout.

    The methods `separate`, `with_comments` and `has_no_comment` are hooks for texts with comments.

    Attributes:
        lines: the lines so far.
    """

    as_written = False

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.definitions: list[_Definition] = []

    def separate(self, indent: int, *, blank: bool = False, first: bool = False, last: bool = False) -> None:
        """Prepare for the next statement, or with ``last`` for the end of a body.

        Args:
            blank: the canonical layout has a blank line here.
            first: the body is empty so far.
        """
        if blank and not first and not last:
            self.lines.append("")

    def with_comments(self, pieces: list[str]) -> list[str]:
        """The pieces, which come next in the text, with the comments among them inserted."""
        return pieces

    def has_no_comment(self, pieces: Sequence[str], skip: int = 1) -> bool:
        """Whether none of these next tokens has a comment before it, the first ``skip`` not counted."""
        return True

    def file(self, file: ast.File) -> str:
        before: ast.Definition | None = None
        for item in file.items:
            together = before is not None and _family(item) == _family(before) not in ("block", "decoder")
            self.separate(0, blank=not together, first=before is None)
            self.line(item, 0)
            before = item
        self.separate(0, first=before is None, last=True)
        self._align()
        return "\n".join([*self.lines, ""]) if self.lines else ""

    def line(self, node: Line, indent: int, hang: int = 4) -> None:
        """Write a statement or a definition with its body."""
        unparser = Unparser(as_written=self.as_written)
        body = unparser.line(node)
        out = unparser.out
        if body is None:
            at = len(self.lines)
            self.lines += break_lines(self.with_comments(out), indent, hang)
            if isinstance(node, ast.OpDef | ast.ChoiceDef) and indent == 0 and len(self.lines) == at + 1:
                before_equal = next(i for i, piece in enumerate(out) if piece == "=" and out[i - 1] is SPACE)
                columns = len("".join(out[:before_equal]))
                self.definitions.append(_Definition(at, columns, len("".join(out)), _family(node)))
            return
        out += (SPACE, "{")
        if isinstance(node, ast.Repeat) and len(body) == 1 and not isinstance(body[0], ast.Repeat):
            inner = Unparser(as_written=self.as_written)
            inner.line(body[0])
            whole = [*out, SPACE, *inner.out, SPACE, "}"]
            if indent + sum(map(len, whole)) <= WIDTH and self.has_no_comment(whole):
                self.lines.append(" " * indent + "".join(self.with_comments(whole)))
                return
        if not body and self.has_no_comment([*out, "}"], skip=count_tokens(out)):
            self.lines += break_lines(self.with_comments([*out, "}"]), indent)
            return
        self.lines += break_lines(self.with_comments(out), indent)
        self.body(body, indent + 2)
        self.lines += break_lines(self.with_comments(["}"]), indent)

    def body(self, body: Sequence[Line], indent: int) -> None:
        before: Line | None = None
        for node in body:
            section = isinstance(node, ast.Fpn | ast.Head) or isinstance(before, ast.Fpn | ast.Head)
            self.separate(indent, blank=section, first=before is None)
            self.line(node, indent, 0 if isinstance(node, ast.Tower) and node.label is None else 4)
            before = node
        self.separate(indent, first=before is None, last=True)

    def _align(self) -> None:
        """Align the ``=`` of definitions on neighbouring lines."""
        for _, neighbours in groupby(
            enumerate(self.definitions), key=lambda entry: (entry[1].line - entry[0], entry[1].family)
        ):
            run = [definition for _, definition in neighbours]
            column = max(definition.columns for definition in run)
            if all(d.columns + MAX_SHIFT >= column and d.width + column - d.columns <= WIDTH for d in run):
                for line, columns, _, _ in run:
                    text = self.lines[line]
                    self.lines[line] = text[:columns].ljust(column) + text[columns:]


class _Definition(NamedTuple):
    """A definition on one line.

    Attributes:
        line: its index in `Layout.lines`.
        columns: columns before its ``=``.
        width: all its columns.
        family: definitions of one family are aligned.
    """

    line: int
    columns: int
    width: int
    family: str


def _family(node: ast.Definition) -> str:
    """What kind of definition it is. No blank line separates neighbours of one family, blocks and decoders excepted."""
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


def count_tokens(pieces: Sequence[str]) -> int:
    """How many of the pieces are tokens, rather than marks or comments."""
    return sum(type(piece) is str for piece in pieces)
