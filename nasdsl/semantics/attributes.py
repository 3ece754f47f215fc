"""Attribute values: numbers, words and arithmetic among them, and what an attribute accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, NamedTuple, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import types
from nasdsl.layers.fields import number_fits
from nasdsl.syntax import ast
from nasdsl.syntax.build import number_digits
from nasdsl.syntax.lexer import MAX_DECIMALS, UNREADABLE


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


class Quoted(str):
    """A name that the text has in double quotes."""

    __slots__ = ()


Value: TypeAlias = int | float | str | Size
"""A number, a word, a size, or a name in quotes. ``true`` and ``false`` are the words "true" and "false"."""

Environment: TypeAlias = Mapping[str, "Value | Unknown"]
"""What words stand for: ``width``, ``norm`` and ``act`` of the section, parameters, ``let`` and ``repeat`` variables."""


class Unknown:
    """The value of a hole, or of an attribute whose mistake is reported already."""


UNKNOWN: Final = Unknown()

DEFERRED: Final = ("feature", "value", "op")
"""Kinds of attribute whose values are no numbers or words."""

Kind: TypeAlias = Literal["count", "odd", "stride", "index", "number", "word", "flag", "size", "name", "feature", "value", "op"]


@dataclass(frozen=True, slots=True)
class Accepts:
    """What an attribute accepts.

    Attributes:
        kind: ``count`` (>= 1), ``odd`` (1, 3, 5, …), ``stride`` (a power of two), ``index`` (>= 0), ``number`` (any, with a
            fraction or without), ``word`` (one of `words`), ``flag`` (true or false), ``size`` (height x width), ``name``
            (any word, or a name in quotes), ``feature`` (a value of the section, or the number of a level), ``value`` (a value
            of the section), ``op`` (the name of an op). What the last three mean is resolved where values and ops are known.
        default: the value where the text sets none; None: it must be set. A name of the environment stands for
            that name's value.
        words: what a ``word`` may be; for other kinds words that are allowed beside them (``auto``).
        largest: the largest number, and side of a size.
        least: the smallest ``count``.
        optional: it may be left out without a default; it has no value then.
    """

    kind: Kind
    default: Value | None = None
    words: tuple[str, ...] = ()
    largest: int = 65536
    optional: bool = False
    least: int = 1

    def expectation(self) -> str:
        plain = {
            "count": f"a whole number from {self.least} to {self.largest}",
            "odd": f"an odd number from 1 to {self.largest}",
            "stride": f"1, 2, 4, … up to {self.largest}",
            "index": f"a whole number from 0 to {self.largest}",
            "number": f"a number of at most {MAX_DECIMALS} digits after the point",
            "word": "",
            "flag": "true or false",
            "size": f"height x width in pixels, each from 1 to {self.largest}, such as 240x320",
            "name": "a name",
            "feature": "a value of this section, or the number of a level",
            "value": "the name of a value of this section",
            "op": "the name of an op, or none",
        }[self.kind]
        options = [o for o in (plain, *self.words) if o]
        return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"

    def takes(self, value: Value) -> bool:
        if isinstance(value, Size):
            return self.kind == "size" and min(value) >= 1 and max(value) <= self.largest
        if self.kind == "name" or isinstance(value, Quoted):
            return self.kind == "name" and isinstance(value, str)
        if isinstance(value, str):
            return value in self.words or (self.kind == "flag" and value in ("true", "false"))
        if self.kind == "number":
            return number_fits(value)
        if isinstance(value, float) or self.kind in ("word", "flag", "size"):
            return False
        if self.kind == "index":
            return 0 <= value <= self.largest
        if value < self.least or value > self.largest:
            return False
        return (self.kind != "odd" or value % 2 == 1) and (self.kind != "stride" or value & (value - 1) == 0)


def evaluate(value: ast.Link, environment: Environment, problems: list[Diagnostic]) -> Value | Unknown:
    """The number, word or size that an attribute expression stands for."""
    if type(value) is ast.Number:
        return value.value
    if type(value) is ast.Reference and value.index is None:
        word = environment.get(value.name, value.name)
        return word if isinstance(word, int | float | str | Size) else UNKNOWN
    if isinstance(value, ast.Size):
        return Size(value.height, value.width)
    if isinstance(value, ast.Text):
        return UNKNOWN if value.value == UNREADABLE else Quoted(value.value)
    if isinstance(value, ast.Group):
        return evaluate(value.inner, environment, problems)
    if isinstance(value, ast.Negative):
        inner = evaluate(value.operand, environment, problems)
        if isinstance(inner, Unknown):
            return UNKNOWN
        if isinstance(inner, str | Size):
            return _not_a_number(value.operand, inner, problems)
        return -inner
    if isinstance(value, ast.Arithmetic):
        return _arithmetic(value, environment, problems)
    if isinstance(value, ast.Reference) and value.index is not None:
        return _numbered_name(value.name, value.index, environment, problems)
    return UNKNOWN  # a hole, or a value whose mistake is reported already


def _arithmetic(value: ast.Arithmetic, environment: Environment, problems: list[Diagnostic]) -> Value | Unknown:
    sides: list[int | float] = []
    for side in (value.left, value.right):
        number = evaluate(side, environment, problems)
        if isinstance(number, Unknown):
            return UNKNOWN
        if isinstance(number, str | Size):
            return _not_a_number(side, number, problems)
        sides.append(number)
    left, right = sides
    if isinstance(left, float) or isinstance(right, float):
        whole = _whole_result(left, value.operator, right)
        if whole is not None and abs(whole) <= 10**18:
            return whole
    if value.operator == "+":
        result = left + right
    elif value.operator == "-":
        result = left - right
    elif value.operator == "*":
        result = left * right
    elif right == 0 or (isinstance(left, int) and isinstance(right, int) and left % right):
        problems.append(types.not_whole(value.span, left, right))
        return UNKNOWN
    else:
        result = left // right if isinstance(left, int) and isinstance(right, int) else left / right
    if abs(result) > 10**18:
        problems.append(types.too_many_digits(value.span))
        return UNKNOWN
    return result


def _whole_result(left: float, operator: str, right: float) -> int | None:
    """The result of arithmetic with fractions where it is whole, as the decimals say: ``0.29 * 100`` is 29. Else None."""
    a, b = Fraction(number_digits(left)), Fraction(number_digits(right))
    if operator == "/":
        result = a / b if b else None
    else:
        result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return int(result) if result is not None and result.denominator == 1 else None


def _not_a_number(at: ast.Link, word: str | Size, problems: list[Diagnostic]) -> Unknown:
    problems.append(types.not_a_number(at.span, str(word)))
    return UNKNOWN


def _numbered_name(name: str, index: ast.Attribute, environment: Environment, problems: list[Diagnostic]) -> str | Unknown:
    """``x[t-1]`` with t = 3 is ``x2``."""
    number = evaluate(index, environment, problems)
    if isinstance(number, Unknown):
        return UNKNOWN
    if not isinstance(number, int) or number < 0:
        problems.append(types.index_value(index.span, name, number, read=False))
        return UNKNOWN
    return f"{name}{number}"


def settings(
    given: tuple[ast.Setting, ...],
    accepted: Mapping[str, Accepts],
    owner: str,
    owner_span: Span,
    environment: Environment,
    problems: list[Diagnostic],
) -> dict[str, Value | Unknown] | None:
    """The value of every accepted attribute. None, with diagnostics, where something is wrong.

    Attributes of the kinds ``feature`` and ``op`` are left out.
    """
    values: dict[str, Value | Unknown] = {}
    seen: dict[str, Span] = {}
    right = True
    for setting in given:
        accepts = accepted.get(setting.name)
        if accepts is None:
            right = False
            known = [name for name in accepted if name.isidentifier()]
            problems.append(types.unknown_attribute(setting.name_span, owner, setting.name, known))
            continue
        if setting.name in seen:
            right = False
            problems.append(types.attribute_twice(setting.name_span, setting.name, seen[setting.name]))
            continue
        seen[setting.name] = setting.name_span
        if accepts.kind in DEFERRED:
            continue
        before = len(problems)
        value = evaluate(setting.value, environment, problems)
        values[setting.name] = value
        if not isinstance(value, Unknown) and not accepts.takes(value):
            right = False
            problems.append(refused(setting, value, accepts, owner))
        elif len(problems) > before:
            right = False
    for name, accepts in accepted.items():
        if name in values or accepts.kind in DEFERRED or accepts.optional:
            continue
        if accepts.default is None:
            right = False
            problems.append(types.missing_attribute(owner_span, owner, name, accepts.expectation()))
            continue
        default = accepts.default
        values[name] = environment.get(default, default) if isinstance(default, str) else default
    return values if right else None


def refused(setting: ast.Setting, value: Value, accepts: Accepts, owner: str) -> Diagnostic:
    """The finding about a value that an attribute does not take."""
    words = (*accepts.words, "true", "false") if accepts.kind == "flag" else accepts.words
    shown = f'"{value}"' if isinstance(value, Quoted) else value
    return types.attribute_value(setting.value.span, owner, setting.name, shown, accepts.expectation(), words)
