"""Primitives that packages add: the base class, and the decorator that checks and registers one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, ClassVar, Final, TypeVar, get_args

from nasdsl.layers import builtin
from nasdsl.layers.base import UNKNOWN_WIDTH, Cost, Feature, LayerError
from nasdsl.layers.fields import FieldError, LayerField, fields_of, is_name, value_text, why_no_name

MAX_OPERANDS: Final = 64


class PrimitiveError(ValueError):
    """A custom layer that breaks the contract of `CustomLayer`. The message names its package and class."""


class CustomLayer:
    """Base class of a primitive that a package adds: one decorated, frozen dataclass.

    Its fields are the attributes that the text may set, of the types int (0 or more), float, bool and str; a field without a
    default must be set, and one that may be None takes ``none``. The values of a str are listed by its type, as in
    ``Literal["a", "b"]``, or by ``field(default="a", metadata={"words": ("a", "b")})``::

        @primitive("shuffle")
        @dataclass(frozen=True, slots=True)
        class Shuffle(CustomLayer):
            groups: int = 2

            def infer(self, inputs): return inputs[0]                       # shape rule
            def cost(self, inputs, out, area): return Cost(0, 0, 0)         # cost rule
            def module(self, inputs, out):                                  # torch is imported only when it is needed
                import torch
                return torch.nn.ChannelShuffle(self.groups)

    A package announces the module that holds such classes as an entry point of the group ``nasdsl.primitives``.
    """

    kind: ClassVar[str]
    operands: ClassVar[int] = 1

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        """Level and width of the result. May raise `LayerError`."""
        raise PrimitiveError(f"{describe(type(self))} has no shape rule: define infer(self, inputs)")

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        """Cost for one image; `area` is height * width of the result, and the cost is linear in it."""
        raise PrimitiveError(f"{describe(type(self))} has no cost rule: define cost(self, inputs, out, area)")

    def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
        """The ``torch.nn.Module`` that takes the operands and returns the result."""
        raise PrimitiveError(f"{describe(type(self))} has no module: define module(self, inputs, out)")

    def source(self, inputs: Sequence[Feature], out: Feature) -> str:
        """The expression that makes its module in stand-alone source, in terms of torch: ``nn.ChannelShuffle(2)``."""
        raise TypeError(
            f"the primitive {self.kind!r} does not say how it is written as source: define source(self, inputs, out)"
        )


CUSTOM: dict[str, type[CustomLayer]] = {}
"""Registered custom layers by the name that texts use."""

_checked: set[Callable[..., Any]] = set()
"""Rules that are wrapped already: a registered class may inherit them from another one."""

_C = TypeVar("_C", bound=type[CustomLayer])


def primitive(name: str, *, operands: int = 1) -> Callable[[_C], _C]:
    """Class decorator: register a `CustomLayer` as the primitive `name` of the language.

    The rules of the class are wrapped, so that an exception or a wrong return value is reported with the name of the class:
    by ``infer`` as a `LayerError`, which becomes a diagnostic at the call in the text, by the others as a `PrimitiveError`.
    To find a wrong cost rule early, ``infer`` tries it once all widths are known.

    Args:
        name: how texts call it; not a word of the language, nor a built-in primitive or op.
        operands: number of features that it takes.

    Raises:
        PrimitiveError: the class breaks the contract, or the name is taken.
    """

    def register(cls: _C) -> _C:
        if not (isinstance(cls, type) and issubclass(cls, CustomLayer)):
            raise PrimitiveError(f"{cls!r} is not a subclass of CustomLayer, and cannot be the primitive {name!r}")
        _check_name(name, cls)
        _check_class(cls, name)
        if isinstance(operands, bool) or not isinstance(operands, int) or not 1 <= operands <= MAX_OPERANDS:
            raise PrimitiveError(f"{describe(cls, name)} has operands={operands!r}; expected 1 to {MAX_OPERANDS}")
        fields = layer_fields(cls)
        cls.kind, cls.operands = name, operands
        for method, check in _CHECKS.items():
            rule = getattr(cls, method)
            if rule not in _checked and rule is not getattr(CustomLayer, method):
                setattr(cls, method, check(rule))
                _checked.add(getattr(cls, method))
        if not any(field.required for field in fields):
            try:
                cls()
            except Exception as error:
                raise PrimitiveError(f"{describe(cls)} cannot be made with its defaults: {_message(error)}") from error
        CUSTOM[name] = cls
        return cls

    return register


def describe(cls: type, name: str | None = None) -> str:
    """A custom layer in messages: its name in texts, its module and class."""
    name = name or getattr(cls, "kind", None)
    return f"the primitive `{name}` ({_path(cls)})" if name else _path(cls)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


_FIELDS: dict[type, tuple[LayerField, ...]] = {}


def layer_fields(cls: type[CustomLayer]) -> tuple[LayerField, ...]:
    """The attributes that texts may set.

    Raises:
        PrimitiveError: a field has a type, default or name that the language cannot express.
    """
    if cls not in _FIELDS:
        try:
            _FIELDS[cls] = fields_of(cls)
        except FieldError as error:
            raise PrimitiveError(f"{describe(cls)}: {error}") from None
    return _FIELDS[cls]


def attribute_texts(layer: CustomLayer) -> dict[str, str]:
    """The attributes of a layer as a text writes them."""
    return {field.name: value_text(getattr(layer, field.name)) for field in layer_fields(type(layer))}


# ------------------------------------------------------------------------------------------- checks of the class


def _check_name(name: str, cls: type) -> None:
    what = f"the name {name!r} of the primitive {_path(cls)}"
    if not is_name(name):
        raise PrimitiveError(f"{what} is {why_no_name(name)}")
    if name in _builtin_primitives():
        raise PrimitiveError(f"{what} is that of a built-in primitive")
    if name in _prelude_ops():
        raise PrimitiveError(f"{what} is that of an op of the prelude, which would hide it")
    taken = CUSTOM.get(name)
    if taken is not None and not _same_class(taken, cls):
        raise PrimitiveError(f"{what} is taken: it is {_path(taken)} already")


def _same_class(old: type, new: type) -> bool:
    """Whether a class is the other one, defined again: its module was reloaded, or is run as a script as well."""

    def file(cls: type) -> object:
        return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__

    return old.__qualname__ == new.__qualname__ and (old.__module__ == new.__module__ or file(old) == file(new))


def _check_class(cls: type, name: str) -> None:
    what = describe(cls, name)
    parameters = cls.__dict__.get("__dataclass_params__")  # of the class itself: a base may be a dataclass too
    if not is_dataclass(cls) or parameters is None:
        raise PrimitiveError(f"{what} is not a dataclass: put @dataclass(frozen=True, slots=True) below @primitive")
    if not (parameters.frozen and parameters.eq):
        raise PrimitiveError(f"{what} is not immutable, or not compared by value: decorate it with @dataclass(frozen=True)")
    for rule, signature in (("infer", "infer(self, inputs)"), ("cost", "cost(self, inputs, out, area)")):
        if getattr(cls, rule) is getattr(CustomLayer, rule):
            raise PrimitiveError(f"{what} has no {'shape' if rule == 'infer' else 'cost'} rule: define {signature}")


@functools.cache
def _builtin_primitives() -> frozenset[str]:
    kinds = {kind for c in vars(builtin).values() if isinstance(kind := getattr(c, "kind", None), str)}
    return frozenset(kinds | set(get_args(builtin.ActivationKind)))


@functools.cache
def _prelude_ops() -> frozenset[str]:
    from nasdsl import resources  # the parser's tables take a while to load, and most programs register nothing
    from nasdsl.diagnostics import Source
    from nasdsl.syntax import ast
    from nasdsl.syntax.parser import parse

    file = parse(Source("prelude.nas", resources.read("grammars", "prelude.nas"))).file
    return frozenset(item.name for item in file.items if isinstance(item, ast.OpDef | ast.BlockDef))


# ------------------------------------------------------------------------------------------- checks of the rules


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _checked_infer(rule: Callable[..., Any]) -> Callable[..., Feature]:
    @functools.wraps(rule)
    def infer(self: CustomLayer, inputs: Sequence[Feature]) -> Feature:
        what = describe(type(self))
        try:
            out = rule(self, inputs)
        except LayerError:
            raise
        except Exception as error:
            raise LayerError("custom", f"{what} fails in infer: {_message(error)}") from error
        known = all(x.width != UNKNOWN_WIDTH for x in inputs)
        if not isinstance(out, Feature) or not _is_whole(out.width) or not (out.level is None or _is_whole(out.level)):
            raise LayerError("custom", f"{what}: infer returns {_short(out)}; expected a Feature of whole numbers")
        if known and out.width == UNKNOWN_WIDTH:
            raise LayerError("custom", f"{what}: infer returns {_short(out)}, although the width of every operand is known")
        if known:
            try:
                self.cost(inputs, out, 1)
            except PrimitiveError as error:
                raise LayerError("custom", str(error)) from error
        return out

    return infer


def _checked_cost(rule: Callable[..., Any]) -> Callable[..., Cost]:
    @functools.wraps(rule)
    def cost(self: CustomLayer, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        try:
            found = rule(self, inputs, out, area)
        except Exception as error:
            raise PrimitiveError(f"{describe(type(self))} fails in cost: {_message(error)}") from error
        if not isinstance(found, Cost) or not all(map(_is_whole, found)):
            raise PrimitiveError(
                f"{describe(type(self))}: cost returns {_short(found)}; expected a Cost(macs, params) of whole numbers"
            )
        return found

    return cost


def _checked_module(rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)
    def module(self: CustomLayer, inputs: Sequence[Feature], out: Feature) -> Any:
        try:
            made = rule(self, inputs, out)
        except Exception as error:
            raise PrimitiveError(f"{describe(type(self))} fails in module: {_message(error)}") from error
        if not callable(made) or not hasattr(made, "state_dict"):  # torch is not imported here
            raise PrimitiveError(f"{describe(type(self))}: module returns {_short(made)}; expected a torch.nn.Module")
        return made

    return module


def _checked_source(rule: Callable[..., Any]) -> Callable[..., str]:
    @functools.wraps(rule)
    def source(self: CustomLayer, inputs: Sequence[Feature], out: Feature) -> str:
        try:
            text = rule(self, inputs, out)
        except Exception as error:
            raise PrimitiveError(f"{describe(type(self))} fails in source: {_message(error)}") from error
        if not isinstance(text, str):
            raise PrimitiveError(f"{describe(type(self))}: source returns {_short(text)}; expected a str")
        return text

    return source


_CHECKS: Final[dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "infer": _checked_infer,
    "cost": _checked_cost,
    "module": _checked_module,
    "source": _checked_source,
}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
