"""Primitives that packages add: the base class, and the decorator that checks and registers one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from types import FunctionType
from typing import Any, ClassVar, Final, TypeVar, get_args

from nasdsl.layers import attention, builtin, upsampling
from nasdsl.layers.base import UNKNOWN_WIDTH, Cost, Feature, Features, LayerError
from nasdsl.layers.fields import FieldError, LayerField, fields_of, is_name, value_text, why_no_name
from nasdsl.layers.origins import class_path, described, is_same_class, origin

MAX_OPERANDS: Final = 64
MAX_RESULTS: Final = 64


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

    A package announces the module that holds such classes as an entry point of the group ``nasdsl.primitives``; see
    docs/plugins.md.

    Attributes:
        kind: the name that texts use.
        operands: how many features it takes.
        results: how many it gives.
        sized: its module is given the height and width of the result, ``module(*operands, size=(height, width))``: that of
            the level, for maps that are not twice as large as those of the level above it.
        origin: the package and the entry point that it comes from; empty for a class of the program itself.
    """

    kind: ClassVar[str]
    operands: ClassVar[int] = 1
    results: ClassVar[int] = 1
    sized: ClassVar[bool] = False
    origin: ClassVar[str] = ""

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        """Level and width of the result; with several results a tuple of them. May raise `LayerError`.

        Args:
            inputs: level and width of each operand.
        """
        raise PrimitiveError(f"{describe(type(self))} has no shape rule: define infer(self, inputs)")

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        """Cost for one image; `area` is height * width of the (first) result, and the cost is linear in it.

        Args:
            inputs: level and width of each operand.
            out: what `infer` gave, with widths known.
            area: height * width, in pixels.
        """
        raise PrimitiveError(f"{describe(type(self))} has no cost rule: define cost(self, inputs, out, area)")

    def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
        """The ``torch.nn.Module`` that takes the operands and returns the result, or a tuple of several.

        Args:
            inputs: level and width of each operand.
            out: what `infer` gave, with widths known.
        """
        raise PrimitiveError(f"{describe(type(self))} has no module: define module(self, inputs, out)")

    def source(self, inputs: Sequence[Feature], out: Feature) -> str:
        """The expression that makes its module in stand-alone source, in terms of torch: ``nn.ChannelShuffle(2)``.

        Args:
            inputs: level and width of each operand.
            out: what `infer` gave, with widths known.
        """
        raise TypeError(f"{describe(type(self))} does not say how it is written as source: define source(self, inputs, out)")

    def definitions(self) -> Sequence[Any]:
        """Classes and functions that the expression of `source` names: their source is copied into the file.

        They may use math, NamedTuple, torch, Tensor, nn and F (``torch.nn.functional``). A str is copied as it is.
        """
        return ()


CUSTOM: dict[str, type[CustomLayer]] = {}
"""Registered custom layers by the name that texts use."""

_checked: set[Callable[..., Any]] = set()
"""Rules that are wrapped already: a registered class may inherit them from another one."""

_C = TypeVar("_C", bound=type[CustomLayer])


def primitive(name: str, *, operands: int = 1, results: int = 1, sized: bool = False) -> Callable[[_C], _C]:
    """Class decorator: register a `CustomLayer` as the primitive `name` of the language.

    The rules of the class are wrapped, so that an exception or a wrong return value is reported with the name of the class:
    by ``infer`` as a `LayerError`, which becomes a diagnostic at the call in the text, by the others as a `PrimitiveError`.
    To find a wrong cost rule early, ``infer`` tries it once all widths are known.

    Args:
        name: how texts call it; not a word of the language, nor a built-in primitive or op.
        operands: number of features that it takes.
        results: number of features that it gives.
        sized: its module is called with ``size``, see `CustomLayer`. A primitive whose result is finer than its operands must
            be: only so does it fit a map with an odd number of pixels.

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
        if isinstance(results, bool) or not isinstance(results, int) or not 1 <= results <= MAX_RESULTS:
            raise PrimitiveError(f"{describe(cls, name)} has results={results!r}; expected 1 to {MAX_RESULTS}")
        fields = layer_fields(cls)
        cls.kind, cls.operands, cls.results, cls.sized, cls.origin = name, operands, results, bool(sized), origin()
        for method, check in _CHECKS.items():
            rule = getattr(cls, method, None)  # `onnx` is optional
            if rule is not None and rule not in _checked and rule is not getattr(CustomLayer, method, None):
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
    """A custom layer in messages: its name in texts, its module and class, and the package and entry point it comes from."""
    return described("primitive", cls, name)


def layer_fields(cls: type[CustomLayer]) -> tuple[LayerField, ...]:
    """The attributes that texts may set.

    Raises:
        PrimitiveError: a field has a type, default or name that the language cannot express.
    """
    try:
        return fields_of(cls, CustomLayer, ("onnx",))
    except FieldError as error:
        raise PrimitiveError(f"{describe(cls)}: {error}") from None


def attribute_texts(layer: CustomLayer) -> dict[str, str]:
    """The attributes of a layer as a text writes them."""
    return {field.name: value_text(getattr(layer, field.name)) for field in layer_fields(type(layer))}


# ------------------------------------------------------------------------------------------- checks of the class


def _check_name(name: str, cls: type) -> None:
    what = f"the name {name!r} of the primitive {class_path(cls)}"
    if not is_name(name):
        raise PrimitiveError(f"{what} is {why_no_name(name)}")
    if name in _builtin_primitives():
        raise PrimitiveError(f"{what} is that of a built-in primitive")
    if name in _prelude_ops():
        raise PrimitiveError(f"{what} is that of an op of the prelude, which would hide it")
    taken = CUSTOM.get(name)
    if taken is not None and not is_same_class(taken, cls):
        raise PrimitiveError(f"{what} is taken: it is {class_path(taken)} already")


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
    classes = [c for module in (builtin, upsampling, attention) for c in vars(module).values()]
    kinds = {kind for c in classes if isinstance(kind := getattr(c, "kind", None), str)}
    kinds -= {builtin.Factor.kind, builtin.Term.kind}  # are written `mul(x, 0.2)` and `add(x, 0.2)`
    return frozenset(kinds | set(get_args(builtin.ActivationKind)) | {"none"})


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
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


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
        found: tuple[Any, ...] = (out,)
        if self.results > 1:
            found = out if type(out) in (tuple, list) and len(out) == self.results else (None,)
        if not all(map(_is_feature, found)):
            expected = "a Feature" if self.results == 1 else f"a tuple of {self.results} Features"
            raise LayerError("custom", f"{what}: infer returns {_short(out)}; expected {expected} of whole numbers")
        if known and any(x.width == UNKNOWN_WIDTH for x in found):
            raise LayerError("custom", f"{what}: infer returns {_short(out)}, although the width of every operand is known")
        levels = [x.level for x in inputs if x.level is not None]
        if not self.sized and any(x.level is not None and x.level < min(levels, default=0) for x in found):
            raise LayerError(
                "custom",
                f"{what} gives a finer map than its operands, and takes no size, so that it does not fit maps with an odd "
                "number of pixels: register it by @primitive(…, sized=True)",
            )
        out = found[0] if self.results == 1 else Features.of(found)
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


def _checked_definitions(rule: Callable[..., Any]) -> Callable[..., Sequence[Any]]:
    @functools.wraps(rule)
    def definitions(self: CustomLayer) -> Sequence[Any]:
        try:
            found = tuple(rule(self))
        except Exception as error:
            raise PrimitiveError(f"{describe(type(self))} fails in definitions: {_message(error)}") from error
        for piece in found:
            if not isinstance(piece, str | type | FunctionType):
                raise PrimitiveError(
                    f"{describe(type(self))}: definitions gives {_short(piece)}; expected classes, functions and strings"
                )
        return found

    return definitions


def _checked_onnx(rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)
    def onnx(self: CustomLayer, *arguments: Any) -> str | tuple[str, ...]:
        try:
            written = rule(self, *arguments)
        except Exception as error:
            raise PrimitiveError(f"{describe(type(self))} fails in onnx: {_message(error)}") from error
        if self.results == 1 and isinstance(written, str):
            return written
        several = tuple(written) if isinstance(written, list | tuple) else ()
        if self.results > 1 and len(several) == self.results and all(isinstance(name, str) for name in several):
            return several
        expected = "the name of a tensor" if self.results == 1 else f"the names of {self.results} tensors"
        raise PrimitiveError(f"{describe(type(self))}: onnx returns {_short(written)}; expected {expected}")

    return onnx


_CHECKS: Final[dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "infer": _checked_infer,
    "cost": _checked_cost,
    "module": _checked_module,
    "source": _checked_source,
    "definitions": _checked_definitions,
    "onnx": _checked_onnx,
}


def _is_feature(value: object) -> bool:
    if not isinstance(value, Feature):
        return False
    return _is_whole(value.width) and (value.level is None or _is_whole(value.level))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
