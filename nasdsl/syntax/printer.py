"""Syntax tree to text: the one canonical layout, and the one-line form that a search controller emits.

The layout: two spaces a level; ``{`` ends a line and ``}`` has its own, except for ``{}`` and for a ``repeat`` around one
short statement; one statement, and one tower of a head, a line; a blank line around fpn and head, around decoders and
blocks, and between definitions of different kinds; spaces around an operator, but none in an index and in a range
(``k=stride + 1``, ``x[t-1]``, ``1..n-1``); an empty ``()`` not written, operands before attributes, numbers as they were
written.

A statement wider than `WIDTH` is broken at its outermost brackets first: two spaces in, one argument a line, or as many
as fit where no argument has brackets of its own. What stands in no bracket goes on four spaces in. Commas, arrows, bars
and operators end a line; they never begin one.

``op`` and ``agg`` definitions on neighbouring lines have their ``=`` in one column, and so have ``choice`` definitions,
where that moves no ``=`` by more than `SHIFT` columns and keeps each line within `WIDTH`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, TypeAlias, TypeVar, assert_never

from nasdsl.syntax import ast
from nasdsl.syntax.build import number_value

WIDTH: Final = 120
"""Columns of a line, comments not counted."""

SHIFT: Final = 16
"""Most columns by which an ``=`` is moved to stand below another."""

Expression: TypeAlias = ast.Operand | ast.Attribute | ast.Alternative | ast.Setting | ast.Target | ast.Step
Line: TypeAlias = ast.Statement | ast.DecoderItem | ast.Definition | ast.Tower
_T = TypeVar("_T")


def print_file(file: ast.File, *, one_line: bool = False) -> str:
    """The text of a tree in the canonical layout; with ``one_line`` on one line, without a line end.

    Reading the text gives an equal tree. A file of nothing is the empty text. On one line, ``;`` stands between the
    statements of a body, except behind a ``}``.

    Raises:
        ValueError: a path that no text can hold: one with a quotation mark or a line end.
    """
    if one_line:
        return " ".join(print_statement(item) for item in file.items)
    from nasdsl.syntax.formatter import Layout  # lines are made of these pieces there

    return Layout().file(file)


def print_statement(node: Line) -> str:
    """A statement, a section, a tower or a definition on one line. Raises ValueError as `print_file` does."""
    pieces = Pieces()
    inner = pieces.line(node)
    line = "".join(pieces.out)
    if inner is None:
        return line
    parts = [print_statement(part) for part in inner]
    if not isinstance(node, ast.Head):
        parts[:-1] = [part if part.endswith("}") else part + ";" for part in parts[:-1]]
    return f"{line} {{ {' '.join(parts)} }}" if parts else f"{line} {{}}"


def print_expression(node: Expression) -> str:
    """An expression, an attribute, ``name=value``, an assignment's left side or a layer of a head, on one line."""
    pieces = Pieces()
    pieces.expression(node)
    return "".join(pieces.out)


# ------------------------------------------------------------------------------------- a statement in pieces


class Mark(str):
    """What may stand between two tokens. Its text is that of an unbroken line; what it is tells its identity."""

    __slots__ = ()


class Comment(str):
    """A comment within a statement, on a line of its own."""

    __slots__ = ()


class TrailingComment(Comment):
    """A comment within a statement, behind the token before it."""

    __slots__ = ()


SPACE: Final = Mark(" ")  # never broken
OPEN: Final = Mark("")  # a group begins, which is broken or not as a whole; its lines stand two spaces further in
HANG: Final = Mark("")  # the same, four spaces
CLOSE: Final = Mark("")  # the group ends
LINE: Final = Mark(" ")  # a line end where the group is broken
SOFT: Final = Mark("")  # the same, behind an opening bracket
DEDENT: Final = Mark("")  # the same, before the closing bracket, which stands below the line that holds the opening one
FILL: Final = Mark(" ")  # a line end where the group is broken and what follows does not fit
SEAM: Final = Mark("")  # the same, with no space where the line goes on


class Pieces:
    """One statement as tokens, each a plain string, with a `Mark` wherever a space or a line end may stand.

    With ``as_written`` the arguments of a call come in the order of their spans.
    """

    def __init__(self, *, as_written: bool = False) -> None:
        self.out: list[str] = []
        self.as_written = as_written
        self.brackets = 0
        self.tight = False  # no spaces around operators

    def words(self, *tokens: str) -> None:
        """Tokens with a space behind each."""
        for token in tokens:
            self.out += (token, SPACE)

    def listed(self, items: Sequence[_T], write: Callable[[_T], None], mark: Mark, separator: str = ",") -> None:
        for i, item in enumerate(items):
            if i:
                self.out += (separator, mark) if separator == "," else (SPACE, separator, mark)
            write(item)

    def bracket(self, items: Sequence[_T], write: Callable[[_T], None], separator: str = ",") -> None:
        self.brackets += 1
        self.out += (OPEN, "(", SOFT)
        start, before = len(self.out), self.brackets
        self.listed(items, write, LINE, separator)
        if self.brackets == before:
            self.out[start:] = [FILL if piece is LINE else piece for piece in self.out[start:]]
        self.out += (DEDENT, ")", CLOSE)

    # ------------------------------------------------------------------------------------ expressions

    def expression(self, node: Expression) -> None:
        put = self.out.append
        match node:
            case ast.Reference() | ast.Target():
                put(node.name)
                if node.index is not None:
                    put("[")
                    self.tightly(node.index)
                    put("]")
            case ast.Call():
                self.name(node.callee)
                arguments: list[ast.Operand | ast.Setting] = [*node.operands, *node.settings]
                if self.as_written:
                    arguments.sort(key=lambda argument: argument.span.start)
                self.bracket(arguments, self.expression)
            case ast.Setting():
                self.out += (node.name, "=")
                self.expression(node.value)
            case ast.Number():
                put(number_text(node))
            case ast.NamedHole():
                self.out += ("?", node.name)
            case ast.ChoiceHole():
                put("?")
                self.bracket(node.alternatives, self.expression, "|")
            case ast.RangeHole():
                self.out += ("?", "(")
                self.tightly(node.first)
                put("..")
                self.tightly(node.last)
                put(")")
            case ast.Step():
                self.name(node.operation)
                self.settings(node.settings)
            case ast.Arithmetic() | ast.Negative() | ast.Group():
                put(HANG)
                self.arithmetic(node, 0)
                put(CLOSE)
            case _:
                assert_never(node)

    def tightly(self, node: ast.Attribute) -> None:
        before, self.tight = self.tight, True
        self.expression(node)
        self.tight = before

    def name(self, node: str | ast.Hole) -> None:
        if isinstance(node, str):
            self.out.append(node)
        else:
            self.expression(node)

    def settings(self, settings: Sequence[ast.Setting]) -> None:
        if settings:
            self.bracket(settings, self.expression)

    def arithmetic(self, node: ast.Attribute, strength: int) -> None:
        """An operand of an operator that binds with ``strength``: 0 none, 1 sums, 2 products, 3 the right of these, a sign.

        Trees that were read have their `Group` nodes; one that lacks them gets parentheses that keep its value.
        """
        put = self.out.append
        while isinstance(node, ast.Negative):
            put("-")
            node, strength = node.operand, 3
        spine: list[ast.Arithmetic] = []  # sums lean to the left and may be thousands of terms long
        while isinstance(node, ast.Arithmetic) and _binds(node) >= strength:
            spine.append(node)
            strength, node = _binds(node), node.left
        if isinstance(node, ast.Negative) and spine:
            self.arithmetic(node, 3)
        elif isinstance(node, ast.Group | ast.Arithmetic):
            put("(")
            self.arithmetic(node.inner if isinstance(node, ast.Group) else node, 0)
            put(")")
        else:
            self.expression(node)
        for above in reversed(spine):
            self.out += (above.operator, SEAM) if self.tight else (SPACE, above.operator, FILL)
            self.arithmetic(above.right, _binds(above) + 1)

    # ------------------------------------------------------------------------------------- statements

    def line(self, node: Line) -> Sequence[Line] | None:
        """A statement or a definition up to its body. Gives what stands in the body, None where there is none."""
        match node:
            case ast.Assign():
                if len(node.targets) > 1:
                    self.out.append(HANG)
                self.listed(node.targets, self.expression, FILL)
                if len(node.targets) > 1:
                    self.out.append(CLOSE)
                self.out += (SPACE, "=", SPACE)
                self.expression(node.value)
            case ast.Output():
                self.words("output")
                self.listed(node.bindings, self.binding, LINE)
            case ast.Merge():
                self.words("merge", "dangling", "into")
                self.listed(node.targets, self.expression, FILL)
            case ast.Let():
                self.words("let", node.name, "=")
                self.expression(node.value)
            case ast.Repeat():
                self.words("repeat")
                if node.variable is not None and node.first is not None:
                    self.words(node.variable, "in")
                    self.tightly(node.first)
                    self.out.append("..")
                    self.tightly(node.last)
                else:
                    self.expression(node.last)
                return node.body
            case ast.Tower():
                if node.label is not None:
                    self.out.append(node.label)
                    self.words(":")
                self.listed(node.steps, self.expression, FILL, "->")
            case ast.Input():
                self.words("input")
                self.listed([name.name for name in node.names], self.out.append, FILL)
            case ast.Require():
                self.words("require", node.quantity, node.comparison)
                self.out.append(number_text(node.bound))
                if node.size is not None:
                    self.out += (SPACE, "at", SPACE, f"{node.size[0]}x{node.size[1]}")
            case ast.Fpn() | ast.Head():
                self.out.append("fpn" if isinstance(node, ast.Fpn) else "head")
                self.settings(node.settings)
                if node.source is None:
                    return node.body if isinstance(node, ast.Fpn) else node.towers
                self.out += (SPACE, "from", SPACE, _quoted(node.source))
            case ast.Predict():
                self.out += ("predict", SPACE, node.detector)
                self.settings(node.settings)
            case _:
                return self.definition(node)
        return None

    def definition(self, node: ast.Definition) -> Sequence[Line] | None:
        match node:
            case ast.Use():
                self.out += ("use", SPACE, _quoted(node.path))
            case ast.OpDef():
                self.out += (node.kind, SPACE, node.name)
                self.bracket(node.parameters, self.parameter)
                self.out += (SPACE, "=", SPACE)
                self.expression(node.body)
            case ast.ChoiceDef():
                self.words("choice", node.name, "=")
                self.listed(node.alternatives, self.expression, FILL, "|")
            case ast.BlockDef():
                self.out += ("block", SPACE, node.name)
                self.bracket([name.name for name in node.parameters], self.out.append)
                self.out += (SPACE, "->", SPACE)
                self.bracket([name.name for name in node.results], self.out.append)
                return node.body
            case ast.Decoder():
                self.out += ("decoder", SPACE, node.name)
                return node.items
        return None

    def binding(self, node: ast.OutputBinding) -> None:
        self.words(node.name, "=")
        self.expression(node.value)

    def parameter(self, node: ast.Parameter) -> None:
        self.out.append(node.name)
        if node.default is not None:
            self.out.append("=")
            self.expression(node.default)


def _binds(node: ast.Arithmetic) -> int:
    return 1 if node.operator in "+-" else 2


def number_text(node: ast.Number) -> str:
    """A number as it was written; one that was not read from a text (its ``text`` says something else) in digits."""
    try:
        if number_value(node.text) == node.value:
            return node.text
    except (ValueError, IndexError):
        pass
    return str(node.value) if isinstance(node.value, int) else format(Decimal(repr(node.value)), "f")


def _quoted(path: str) -> str:
    if '"' in path or "\n" in path:
        raise ValueError(f"no text can hold the path {path!r}")
    return f'"{path}"'
