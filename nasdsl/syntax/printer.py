"""Syntax tree to text: the canonical layout, and the one-line form that a search controller emits.

The canonical layout: two spaces a level; ``{`` ends a line and ``}`` has a line of its own, except for ``{}`` and for a
``repeat`` around one short statement; one statement, and one tower of a head, a line; a blank line around fpn and head,
around decoders and blocks, and between definitions of different kinds; spaces around an operator, but none in an index
and in a range (``k=stride + 1``, ``x[t-1]``, ``1..n-1``); no empty ``()``; operands before attributes; numbers as they
were written.

A statement wider than `layout.WIDTH` is broken at its outermost brackets first: two spaces in, one argument a line, or as
many as fit where no argument has brackets of its own. Continuation lines outside brackets are indented by four spaces.
Commas, arrows, bars and operators end a line; they never begin one.

``op`` and ``agg`` definitions on neighbouring lines have their ``=`` in one column, and so have ``choice`` definitions,
if that moves no ``=`` by more than `layout.MAX_SHIFT` columns and keeps each line within `layout.WIDTH`.
"""

from __future__ import annotations

import re

from nasdsl.syntax import ast
from nasdsl.syntax.layout import Layout
from nasdsl.syntax.lexer import RESERVED
from nasdsl.syntax.unparse import Expression, Line, Unparser, quoted


def print_file(file: ast.File, *, one_line: bool = False) -> str:
    """Print a tree in the canonical layout, or with ``one_line`` on one line without a line end.

    Parsing the text gives an equal tree. A file without items gives the empty text. On one line, ``;`` separates the
    statements of a body, except after a ``}``.

    Raises:
        ValueError: a path contains a quotation mark or a line end, which no text can hold.
    """
    if one_line:
        return " ".join(print_statement(item) for item in file.items)
    return Layout().file(file)


def print_statement(node: Line) -> str:
    """Print a statement, a section, a tower or a definition on one line. Raises ValueError as `print_file` does."""
    unparser = Unparser()
    body = unparser.line(node)
    line = "".join(unparser.out)
    if body is None:
        return line
    parts = [print_statement(part) for part in body]
    if not isinstance(node, ast.Head):
        parts[:-1] = [part if part.endswith("}") else part + ";" for part in parts[:-1]]
    return f"{line} {{ {' '.join(parts)} }}" if parts else f"{line} {{}}"


def print_expression(node: Expression) -> str:
    """Print an expression, an attribute, ``name=value``, an assignment's target or a layer of a head, on one line."""
    unparser = Unparser()
    unparser.expression(node)
    return "".join(unparser.out)


def print_name(name: str) -> str:
    """A name as an attribute value: in double quotes where it is no word of a text. Raises ValueError as `print_file` does."""
    is_word = re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*", name) is not None and name not in RESERVED
    return name if is_word else quoted(name)
