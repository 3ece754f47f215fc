"""The fields of a custom layer or a kind of prediction: the attributes that texts may set, their types and defaults."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias, Union

from nasdsl.syntax.build import number_digits
from nasdsl.syntax.lexer import MAX_DECIMALS, MAX_DIGITS, RESERVED

FieldType: TypeAlias = Literal["int", "float", "bool", "str"]
FieldValue: TypeAlias = int | float | bool | str | None

MAX_INTEGER: Final = 10**9
"""Largest value of an ``int`` field."""

MAX_NUMBER: Final = 10**MAX_DIGITS
"""Bound of the absolute value of a ``float`` field, which is smaller."""

SECTION_WORDS: Final = ("width", "norm", "act")
"""Words that stand for the attributes of the section in which an op is called, so that no attribute can have them as value."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_TYPES: Final[dict[object, FieldType]] = {int: "int", float: "float", bool: "bool", str: "str"}
_SUPPORTED: Final = "int, float, bool or str, each perhaps `| None`, or a Literal of strings"


class FieldError(ValueError):
    """A field that the language cannot express as an attribute."""


@dataclass(frozen=True, slots=True)
class LayerField:
    """A field of a custom layer or a kind of prediction.

    Attributes:
        type: of its values.
        optional: it may be None, which texts write as ``none``.
        required: it has no default.
        default: the default; None also if there is none.
        words: the values of a ``str`` field.
    """

    name: str
    type: FieldType
    optional: bool = False
    required: bool = False
    default: FieldValue = None
    words: tuple[str, ...] = ()

    def convert(self, value: int | float | str) -> FieldValue:
        """The value of the field for a value of the text, in which ``true``, ``false`` and ``none`` are words."""
        if self.optional and value == "none":
            return None
        if self.type == "bool":
            return value == "true"
        return float(value) + 0.0 if self.type == "float" else value  # -0.0 becomes 0.0


_cache: dict[type, tuple[LayerField, ...]] = {}


def fields_of(cls: type[Any], base: type, optional: tuple[str, ...] = ()) -> tuple[LayerField, ...]:
    """The fields of a dataclass.

    Args:
        base: the class that it is derived from: no field has the name of one of its attributes.
        optional: names of methods that the class may define and `base` does not have, which no field has either.

    Raises:
        FieldError: a field has a type, default or name that the language cannot express.
    """
    if cls in _cache:
        return _cache[cls]
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        _check_name(field.name)
        if hasattr(base, field.name) or field.name in (*base.__annotations__, *optional):
            raise FieldError(f"field `{field.name}`: {base.__name__} has an attribute of this name; rename the field")
        try:
            found.append(_field(field, _annotation(cls, field)))
        except FieldError as error:
            raise FieldError(f"field `{field.name}`: {error}") from None
    known = {field.name for field in dataclasses.fields(cls)}
    for name, field in cls.__dataclass_fields__.items():
        if name not in known and "InitVar" in str(field.type):
            raise FieldError(f"field `{name}`: an InitVar, whose value the layer does not keep")
    return _cache.setdefault(cls, tuple(found))


def is_name(word: object) -> bool:
    """Whether a word can be a name in the language."""
    return isinstance(word, str) and _NAME.fullmatch(word) is not None and word not in RESERVED


def number_fits(value: float) -> bool:
    """Whether the language can express a float: finite, and with at most `MAX_DECIMALS` digits after the point."""
    if not math.isfinite(value) or abs(value) >= MAX_NUMBER:
        return False
    return len(number_digits(value).partition(".")[2]) <= MAX_DECIMALS


def value_text(value: FieldValue) -> str:
    """The value of a field as the language writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return number_digits(value) if isinstance(value, float) else str(value)


def _annotation(cls: type, field: dataclasses.Field[Any]) -> Any:
    """The annotation of a field as a type; as a string if it names what its module lacks at run time."""
    if not isinstance(field.type, str):
        return field.type
    try:
        return eval(field.type, dict(vars(sys.modules[cls.__module__])), dict(vars(cls)))
    except Exception:  # whatever evaluating it raises
        return field.type


def why_no_name(word: object) -> str:
    """What a word is instead of a name of the language."""
    return "a word of the language" if word in RESERVED else "not a name of the language: letters a to z, digits and `_`"


def _check_name(name: str) -> None:
    if not is_name(name):
        raise FieldError(f"field `{name}`: this is {why_no_name(name)}; rename the field")
    if name == "to":
        raise FieldError("field `to`: this attribute names the level that `resize` leads to; rename the field")


def _field(field: dataclasses.Field[Any], annotation: Any) -> LayerField:
    """Check type, default and words of a field."""
    optional = False
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = typing.get_args(annotation)
        optional = types.NoneType in members
        rest = [m for m in members if m is not types.NoneType]
        annotation = rest[0] if len(rest) == 1 else annotation
    words = field.metadata.get("words", ())
    if not isinstance(words, tuple | list):
        raise FieldError(f"its words are {words!r}; expected a tuple of strings")
    words = tuple(words)
    if typing.get_origin(annotation) is Literal:
        words = words or typing.get_args(annotation)
        annotation = str if all(isinstance(word, str) for word in typing.get_args(annotation)) else annotation
    try:
        kind = _TYPES.get(annotation)
    except TypeError:  # not hashable
        kind = None
    if kind is None:
        shown = annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", str(annotation))
        raise FieldError(f"its type is {shown}; expected {_SUPPORTED}")
    try:
        default = field.default if field.default_factory is MISSING else field.default_factory()
    except Exception as error:
        raise FieldError(f"its default_factory raises {type(error).__name__}: {error}") from None
    required = default is MISSING
    value = None if required else _check_default(default, kind, optional)
    if kind == "str":
        words = words or ((value,) if value is not None else ())
        _check_words(words, value, optional)
    return LayerField(field.name, kind, optional, required, value, words)


def _check_default(default: Any, kind: FieldType, optional: bool) -> FieldValue:
    if default is None:
        if not optional:
            raise FieldError(f"its default is None, and its type {kind}; expected `{kind} | None`")
        return None
    if kind == "float" and isinstance(default, int | float) and not isinstance(default, bool):
        if not number_fits(default):
            raise FieldError(f"its default is {default!r}, which no text could write; expected fewer digits")
        return float(default)
    expected: dict[FieldType, type[int | bool | float | str]] = {"int": int, "bool": bool, "float": float, "str": str}
    if not isinstance(default, expected[kind]) or isinstance(default, bool) != (kind == "bool"):
        raise FieldError(f"its default is {default!r}, and its type {kind}")
    if kind == "int" and not (isinstance(default, int) and 0 <= default <= MAX_INTEGER):
        raise FieldError(f"its default is {default}; expected a whole number from 0 to {MAX_INTEGER:,}")
    return default


def _check_words(words: tuple[Any, ...], default: FieldValue, optional: bool) -> None:
    if not words:
        raise FieldError('it has no words; expected `field(metadata={"words": ("a", "b")})`, or a Literal')
    for word in words:
        if not is_name(word):
            raise FieldError(f"its value {word!r} is {why_no_name(word)}; choose another word")
        if word in SECTION_WORDS or word in ("true", "false"):
            meant = "the attribute of the section" if word in SECTION_WORDS else "a bool"
            raise FieldError(f"its value {word!r} stands for {meant} in a text; choose another word")
        if optional and word == "none":
            raise FieldError("its value 'none' would stand for None as well; choose another word")
    if default is not None and default not in words:
        raise FieldError(f"its default is {default!r}; expected one of {', '.join(map(repr, words))}")
