"""Grammar reductions to typed nodes: one method a rule, named as in ``grammars/nas.lark``."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from nasdsl.diagnostics import Span
from nasdsl.diagnostics.span import quick_span
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import Tok

_SUFFIX = {"K": 10**3, "M": 10**6, "G": 10**9}

Children = list[Any]


def _between(first: Any, last: Any) -> Span:
    """The span from the first character of one node or token to the last of another."""
    if type(first) is Tok:  # what most begin with: no span of its own is made
        anchor, start = first.anchor, first.first
    else:
        anchor, start, _ = first.span
    if type(last) is Tok:
        other, end = last.anchor, last.last
    else:
        other, _, end = last.span
    return quick_span((anchor, start, end if other is anchor else end + other.offset - anchor.offset))


def _without_separators(children: Children) -> tuple[Any, ...]:
    """The items of a separated list."""
    return tuple(children[::2])


def _height_and_width(token: Tok) -> tuple[int, int]:
    height, width = token.value.split("x")
    return int(height), int(width)


def number_value(text: str) -> int | float:
    """``120G`` is 120000000000, ``1.5`` is 1.5."""
    scale = _SUFFIX.get(text[-1], 1)
    digits = text[:-1] if scale > 1 else text
    value: int | float = float(digits) if "." in digits else int(digits)
    return int(value * scale) if scale > 1 else value


DURATION_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6}
"""Units of a time, with how many of them are a second."""


def duration_value(text: str) -> float:
    """``15ms`` in seconds: 0.015.

    Raises:
        ValueError: it is no time.
    """
    digits = text.rstrip("mus")
    unit = text[len(digits) :]
    if unit not in DURATION_UNITS:
        raise ValueError(f"{text!r} is no time")
    return float(Decimal(digits) / DURATION_UNITS[unit])


def number_digits(value: float) -> str:
    """A finite number in digits, without an exponent: 1e-05 is ``0.00001``."""
    return format(Decimal(repr(value)), "f")


class Builder:
    """Each method takes the children of a rule, tokens included, and returns its node."""

    # ------------------------------------------------------------------------------------ expressions

    def reference(self, c: Children) -> ast.Reference:
        token: Tok = c[0]
        if len(c) == 1:
            return ast.Reference(quick_span((token.anchor, token.first, token.last)), token.value)
        return ast.Reference(_between(token, c[3]), token.value, c[2])

    def call(self, c: Children) -> ast.Call:
        callee = c[0]
        name = callee.value if type(callee) is Tok else callee
        operands: list[ast.Operand | ast.Attribute] = []
        settings: list[ast.Setting] = []
        is_distinct = c[-1].type == "DISTINCT"
        for argument in c[2 : -2 if is_distinct else -1 : 2]:
            (settings if type(argument) is ast.Setting else operands).append(argument)
        return ast.Call(_between(callee, c[-1]), name, callee.span, tuple(operands), tuple(settings), is_distinct)

    def setting(self, c: Children) -> ast.Setting:
        return ast.Setting(_between(c[0], c[2]), c[0].value, c[0].span, c[2])

    def number(self, c: Children) -> ast.Number:
        token: Tok = c[0]
        return ast.Number(token.span, number_value(token.value), token.value)

    def size(self, c: Children) -> ast.Size:
        return ast.Size(c[0].span, *_height_and_width(c[0]))

    def string(self, c: Children) -> ast.Text:
        return ast.Text(c[0].span, c[0].value[1:-1])

    def attribute(self, c: Children) -> ast.Arithmetic:
        return ast.Arithmetic(_between(c[0], c[2]), c[1].value, c[0], c[2])

    term = attribute

    def own_width(self, c: Children) -> ast.Reference:
        return ast.Reference(c[0].span, c[0].value)

    def negative(self, c: Children) -> ast.Negative:
        return ast.Negative(_between(c[0], c[1]), c[1])

    def group(self, c: Children) -> ast.Group:
        return ast.Group(_between(c[0], c[2]), c[1])

    def hole(self, c: Children) -> ast.Hole:
        span = _between(c[0], c[-1])
        if len(c) == 2:
            return ast.NamedHole(span, c[1].value)
        if len(c) == 4:
            return ast.ChoiceHole(span, c[2].values, c[2].weights)
        return ast.RangeHole(span, c[2], c[4])

    def alternatives(self, c: Children) -> _Alternatives:
        parts = _without_separators(c)
        values = tuple([p.value if type(p) is _Weighted else p for p in parts])
        weights = tuple([p.weight if type(p) is _Weighted else None for p in parts])
        return _Alternatives(_between(c[0], c[-1]), values, weights if any(weights) else ())

    def weighted(self, c: Children) -> _Weighted:
        return _Weighted(_between(c[0], c[2]), c[0], self.number(c[2:]))

    def alternative(self, c: Children) -> ast.Chain:
        return ast.Chain(_between(c[0], c[-1]), _without_separators(c))

    link = attribute

    # ------------------------------------------------------------------------------------- statements

    def assign(self, c: Children) -> ast.Assign:
        return ast.Assign(_between(c[0], c[-1]), tuple(c[:-2:2]), c[-1])

    def target(self, c: Children) -> ast.Target:
        return ast.Target(_between(c[0], c[-1]), c[0].value, c[2] if len(c) > 1 else None)

    def output(self, c: Children) -> ast.Output:
        return ast.Output(_between(c[0], c[-1]), tuple(c[1::2]))

    def binding(self, c: Children) -> ast.OutputBinding:
        return ast.OutputBinding(_between(c[0], c[2]), c[0].value, c[0].span, c[2])

    def merge(self, c: Children) -> ast.Merge:
        return ast.Merge(_between(c[0], c[-1]), tuple(c[3::2]))

    def repeat(self, c: Children) -> ast.Repeat:
        span, body = _between(c[0], c[-1]), c[-1].statements
        if len(c) == 3:
            return ast.Repeat(span, None, None, c[1], body)
        return ast.Repeat(span, c[1].value, c[3], c[5], body, c[1].span)

    def let(self, c: Children) -> ast.Let:
        return ast.Let(_between(c[0], c[3]), c[1].value, c[1].span, c[3])

    def body(self, c: Children) -> _Body:
        return _Body(_between(c[0], c[-1]), tuple(x for x in c[1:-1] if type(x) is not Tok))

    # ---------------------------------------------------------------------------------------- decoder

    def input(self, c: Children) -> ast.Input:
        return ast.Input(_between(c[0], c[-1]), tuple(ast.InputName(t.span, t.value) for t in c[1::2]))

    def detector(self, c: Children) -> ast.Detector:
        return ast.Detector(_between(c[0], c[-1]), tuple(c[2:-1:2]))

    def require(self, c: Children) -> ast.Require:
        subject = ast.Reference(c[3].span, c[3].value) if c[2].type == "LPAR" else None
        comparison, number, *rest = c[2:] if subject is None else c[5:]
        is_time = number.type == "DURATION"
        bound: ast.Number | ast.Duration = (
            ast.Duration(number.span, duration_value(number.value), number.value)
            if is_time
            else ast.Number(number.span, number_value(number.value), number.value)
        )
        runtime = None
        if rest and rest[0].type == "ON":
            runtime = ast.Reference(rest[1].span, rest[1].value)
            rest = rest[2:]
        size = _height_and_width(rest[1]) if rest else None
        return ast.Require(_between(c[0], c[-1]), c[1].value, c[1].span, comparison.value, bound, size, subject, runtime)

    def settings(self, c: Children) -> _Settings:
        return _Settings(_between(c[0], c[-1]), tuple(c[1:-1:2]))

    def step(self, c: Children) -> ast.Step:
        operation = c[0].value if type(c[0]) is Tok else c[0]
        settings = c[1].values if len(c) > 1 and type(c[1]) is _Settings else ()
        times = c[-1] if len(c) > 2 and type(c[-2]) is Tok else None
        return ast.Step(_between(c[0], c[-1]), operation, settings, times)

    def chain(self, c: Children) -> ast.Tower:
        return ast.Tower(_between(c[0], c[-1]), None, _without_separators(c))

    def tower(self, c: Children) -> ast.Tower:
        return ast.Tower(_between(c[0], c[2]), c[0].value, c[2].steps)

    def towers(self, c: Children) -> _Towers:
        return _Towers(_between(c[0], c[-1]), tuple(c[1:-1]))

    def fpn(self, c: Children) -> ast.Fpn:
        settings, last = c[1].values if type(c[1]) is _Settings else (), c[-1]
        if type(last) is Tok:
            return ast.Fpn(_between(c[0], last), settings, (), last.value[1:-1])
        return ast.Fpn(_between(c[0], last), settings, last.statements)

    def head(self, c: Children) -> ast.Head:
        settings, last = c[1].values if type(c[1]) is _Settings else (), c[-1]
        if type(last) is Tok:
            return ast.Head(_between(c[0], last), settings, (), last.value[1:-1])
        return ast.Head(_between(c[0], last), settings, last.towers)

    def predict(self, c: Children) -> ast.Predict:
        settings = c[2].values if len(c) > 2 else ()
        return ast.Predict(_between(c[0], c[-1]), c[1].value, c[1].span, settings)

    def decoder(self, c: Children) -> ast.Decoder:
        items = tuple(x for x in c[3:-1] if type(x) is not Tok)
        return ast.Decoder(_between(c[0], c[-1]), c[1].value, c[1].span, items)

    # ------------------------------------------------------------------------------------ definitions

    def use(self, c: Children) -> ast.Use:
        return ast.Use(_between(c[0], c[1]), c[1].value[1:-1])

    def param(self, c: Children) -> ast.Parameter:
        return ast.Parameter(_between(c[0], c[-1]), c[0].value, c[2] if len(c) > 1 else None)

    def params(self, c: Children) -> tuple[ast.Parameter, ...]:
        return _without_separators(c)

    def op_def(self, c: Children) -> ast.OpDef:
        return ast.OpDef(_between(c[0], c[6]), c[0].value, c[1].value, c[1].span, c[3], c[6])

    shared = op_def

    def choice(self, c: Children) -> ast.ChoiceDef:
        return ast.ChoiceDef(_between(c[0], c[3]), c[1].value, c[1].span, c[3].values, c[3].weights)

    def names(self, c: Children) -> tuple[ast.InputName, ...]:
        return tuple(ast.InputName(t.span, t.value) for t in _without_separators(c))

    def block_def(self, c: Children) -> ast.BlockDef:
        return ast.BlockDef(_between(c[0], c[-1]), c[1].value, c[1].span, c[3], c[7], c[9].statements)

    def start(self, c: Children) -> tuple[ast.Definition, ...]:
        return tuple(x for x in c if type(x) is not Tok)


class _Body:
    """The statements between two braces, until they are part of a node."""

    __slots__ = ("span", "statements")

    def __init__(self, span: Span, statements: tuple[ast.Statement, ...]) -> None:
        self.span, self.statements = span, statements


class _Weighted:
    """An alternative, and how often it is drawn."""

    __slots__ = ("span", "value", "weight")

    def __init__(self, span: Span, value: ast.Alternative, weight: ast.Number) -> None:
        self.span, self.value, self.weight = span, value, weight


class _Alternatives:
    """The alternatives of a hole or a choice, and the weight of each; `weights` is empty where none has one."""

    __slots__ = ("span", "values", "weights")

    def __init__(self, span: Span, values: tuple[Any, ...], weights: tuple[ast.Number | None, ...]) -> None:
        self.span, self.values, self.weights = span, values, weights


class _Settings:
    __slots__ = ("span", "values")

    def __init__(self, span: Span, values: tuple[ast.Setting, ...]) -> None:
        self.span, self.values = span, values


class _Towers:
    __slots__ = ("span", "towers")

    def __init__(self, span: Span, towers: tuple[ast.Tower, ...]) -> None:
        self.span, self.towers = span, towers
