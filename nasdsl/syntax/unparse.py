"""Syntax tree to tokens and layout marks, one statement at a time. `nasdsl.syntax.layout` breaks them into lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar, assert_never

from nasdsl.syntax import ast
from nasdsl.syntax.build import DURATION_UNITS, duration_value, number_digits, number_value

Expression: TypeAlias = ast.Operand | ast.Attribute | ast.Alternative | ast.Setting | ast.Target | ast.Step
Line: TypeAlias = ast.Statement | ast.DecoderItem | ast.Definition | ast.Tower
_T = TypeVar("_T")


class Mark(str):
    """A layout mark between two tokens. Its text is what an unbroken line shows; marks are compared by identity."""

    __slots__ = ()


class Comment(str):
    """A comment inside a statement, on a line of its own."""

    __slots__ = ()


class TrailingComment(Comment):
    """A comment inside a statement, on the line of the token before it."""

    __slots__ = ()


SPACE: Final = Mark(" ")  # a space, never a line end
OPEN: Final = Mark("")  # begin a group, which is broken as a whole or not at all; its lines are indented by two spaces
HANG: Final = Mark("")  # the same, indented by four spaces
CLOSE: Final = Mark("")  # end the group
LINE: Final = Mark(" ")  # a line end if the group is broken, else a space
SOFT: Final = Mark("")  # a line end if the group is broken, else nothing; after an opening bracket
DEDENT: Final = Mark("")  # the same, before a closing bracket, which aligns with the line of the opening one
FILL: Final = Mark(" ")  # a line end if the group is broken and what follows does not fit, else a space
SEAM: Final = Mark("")  # the same, else nothing


class Unparser:
    """Turns one statement into tokens (plain strings) and a `Mark` wherever a space or a line end may stand.

    Args:
        as_written: keep the arguments of a call in the order of their spans; by default operands come first.

    Attributes:
        out: tokens and marks so far.
    """

    def __init__(self, *, as_written: bool = False) -> None:
        self.out: list[str] = []
        self.as_written = as_written
        self.brackets = 0  # brackets opened so far
        self.tight = False  # no spaces around operators

    def words(self, *tokens: str) -> None:
        """Append tokens, each followed by a space."""
        for token in tokens:
            self.out += (token, SPACE)

    def separated(self, items: Sequence[_T], write: Callable[[_T], None], mark: Mark, separator: str = ",") -> None:
        for i, item in enumerate(items):
            if i:
                self.out += (separator, mark) if separator == "," else (SPACE, separator, mark)
            write(item)

    def bracket(self, items: Sequence[_T], write: Callable[[_T], None], separator: str = ",") -> None:
        self.brackets += 1
        self.out += (OPEN, "(", SOFT)
        start, before = len(self.out), self.brackets
        self.separated(items, write, LINE, separator)
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
                    self.without_spaces(node.index)
                    put("]")
            case ast.Call():
                self.name(node.callee)
                arguments: list[ast.Operand | ast.Attribute | ast.Setting] = [*node.operands, *node.settings]
                if self.as_written:
                    arguments.sort(key=lambda argument: argument.span.start)
                self.bracket(arguments, self.expression)
                if node.distinct:
                    self.out += (SPACE, "distinct")
            case ast.Setting():
                self.out += (node.name, "=")
                self.expression(node.value)
            case ast.Number():
                put(number_text(node))
            case ast.Size():
                put(f"{node.height}x{node.width}")
            case ast.Text():
                put(quoted(node.value))
            case ast.NamedHole():
                self.out += ("?", node.name)
            case ast.ChoiceHole():
                put("?")
                self.bracket(self.weighted(node), self.alternative, "|")
            case ast.RangeHole():
                self.out += ("?", "(")
                self.without_spaces(node.first)
                put("..")
                self.without_spaces(node.last)
                put(")")
            case ast.Chain():
                self.separated(node.links, self.expression, FILL, "->")
            case ast.Step():
                self.name(node.operation)
                self.settings(node.settings)
                if node.times is not None:
                    self.out += (SPACE, "*", SPACE)
                    self.arithmetic(node.times, 3)
            case ast.Arithmetic() | ast.Negative() | ast.Group():
                put(HANG)
                self.arithmetic(node, 0)
                put(CLOSE)
            case _:
                assert_never(node)

    def without_spaces(self, node: ast.Attribute) -> None:
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

    def arithmetic(self, node: ast.Attribute | ast.Call, strength: int) -> None:
        """Append an operand of an operator with binding ``strength``: 0 none, 1 sum, 2 product, 3 right operand or sign.

        Parsed trees hold their parentheses as `Group` nodes. Other trees get parentheses where they are needed.
        """
        put = self.out.append
        while isinstance(node, ast.Negative):
            put("-")
            node, strength = node.operand, 3
        spine: list[ast.Arithmetic] = []  # sums nest to the left, possibly thousands of terms deep: no recursion
        while isinstance(node, ast.Arithmetic) and binding_strength(node) >= strength:
            spine.append(node)
            strength, node = binding_strength(node), node.left
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
            self.arithmetic(above.right, binding_strength(above) + 1)

    # ------------------------------------------------------------------------------------- statements

    def line(self, node: Line) -> Sequence[Line] | None:
        """Append a statement or a definition up to its body. Returns the items of the body, or None if it has none."""
        match node:
            case ast.Assign():
                if len(node.targets) > 1:
                    self.out.append(HANG)
                self.separated(node.targets, self.expression, FILL)
                if len(node.targets) > 1:
                    self.out.append(CLOSE)
                self.out += (SPACE, "=", SPACE)
                self.expression(node.value)
            case ast.Output():
                self.words("output")
                self.separated(node.bindings, self.binding, LINE)
            case ast.Merge():
                self.words("merge", "dangling", "into")
                self.separated(node.targets, self.expression, FILL)
            case ast.Let():
                self.words("let", node.name, "=")
                self.expression(node.value)
            case ast.Repeat():
                self.words("repeat")
                if node.variable is not None and node.first is not None:
                    self.words(node.variable, "in")
                    self.without_spaces(node.first)
                    self.out.append("..")
                    self.without_spaces(node.last)
                else:
                    self.expression(node.last)
                return node.body
            case ast.Tower():
                if node.label is not None:
                    self.out.append(node.label)
                    self.words(":")
                self.separated(node.steps, self.expression, FILL, "->")
            case ast.Input():
                self.words("input")
                self.separated([name.name for name in node.names], self.out.append, FILL)
            case ast.Detector():
                self.out.append("detector")
                self.settings(node.settings)
            case ast.Require():
                self.out += ("require", SPACE, node.quantity)  # one piece a token: the formatter counts them
                if node.subject is not None:
                    self.out += ("(", node.subject.name, ")")
                self.out += (SPACE, node.comparison, SPACE)
                self.out.append(duration_text(node.bound) if isinstance(node.bound, ast.Duration) else number_text(node.bound))
                if node.runtime is not None:
                    self.out += (SPACE, "on", SPACE, node.runtime.name)
                if node.size is not None:
                    self.out += (SPACE, "at", SPACE, f"{node.size[0]}x{node.size[1]}")
            case ast.Fpn() | ast.Head():
                self.out.append("fpn" if isinstance(node, ast.Fpn) else "head")
                self.settings(node.settings)
                if node.source is None:
                    return node.body if isinstance(node, ast.Fpn) else node.towers
                self.out += (SPACE, "from", SPACE, quoted(node.source))
            case ast.Predict():
                self.out += ("predict", SPACE, node.detector)
                self.settings(node.settings)
            case _:
                return self.definition(node)
        return None

    def definition(self, node: ast.Definition) -> Sequence[Line] | None:
        match node:
            case ast.Use():
                self.out += ("use", SPACE, quoted(node.path))
            case ast.OpDef():
                self.out += (node.kind, SPACE, node.name)
                self.bracket(node.parameters, self.parameter)
                self.out += (SPACE, "=", SPACE)
                self.expression(node.body)
            case ast.ChoiceDef():
                self.words("choice", node.name, "=")
                self.separated(self.weighted(node), self.alternative, FILL, "|")
            case ast.BlockDef():
                self.out += ("block", SPACE, node.name)
                self.bracket(node.parameters, self.parameter)
                self.out += (SPACE, "->", SPACE)
                self.bracket([name.name for name in node.results], self.out.append)
                return node.body
            case ast.Decoder():
                self.out += ("decoder", SPACE, node.name)
                return node.items
        return None

    def weighted(self, node: ast.ChoiceHole | ast.ChoiceDef) -> list[tuple[ast.Alternative, ast.Number | None]]:
        """The alternatives, each with its weight."""
        return [*zip(node.alternatives, node.weights or [None] * len(node.alternatives), strict=True)]

    def alternative(self, item: tuple[ast.Alternative, ast.Number | None]) -> None:
        node, weight = item
        self.expression(node)
        if weight is not None:
            self.out += (SPACE, ":", SPACE, number_text(weight))

    def binding(self, node: ast.OutputBinding) -> None:
        self.words(node.name, "=")
        self.expression(node.value)

    def parameter(self, node: ast.Parameter) -> None:
        self.out.append(node.name)
        if node.default is not None:
            self.out.append("=")
            self.expression(node.default)


def binding_strength(node: ast.Arithmetic) -> int:
    """1 for a sum, 2 for a product: an operand that binds less than the operator around it stands in brackets."""
    return 1 if node.operator in "+-" else 2


def number_text(node: ast.Number) -> str:
    """A number as it was written; if its ``text`` has another value, as in a tree not made by the parser, in digits."""
    try:
        if number_value(node.text) == node.value:
            return node.text
    except (ValueError, IndexError):
        pass
    return number_digits(node.value)


def duration_text(node: ast.Duration) -> str:
    """A time as it was written; if its ``text`` has another value, in the largest unit that makes it 1 or more."""
    try:
        if duration_value(node.text) == node.value:
            return node.text
    except ValueError:
        pass
    unit, factor = next(((u, f) for u, f in DURATION_UNITS.items() if node.value * f >= 1), ("us", 10**6))
    return number_digits(round(node.value * factor, 9)) + unit


def quoted(string: str) -> str:
    """A string in double quotes. Raises ValueError for one that no text can hold."""
    if '"' in string or "\n" in string:
        raise ValueError(f"a text cannot hold the string {string!r}")
    return f'"{string}"'
