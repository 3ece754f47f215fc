"""What the primitives look like in a text: operands, attributes, and the layers that a call becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from nasdsl import layers
from nasdsl.layers import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv,
    DeformConv,
    GlobalPool,
    Layer,
    Maximum,
    Multiply,
    Norm,
    Pool,
    Resize,
    Scale,
    WeightedAdd,
)
from nasdsl.semantics.attributes import Accepts

ACTIVATIONS: tuple[str, ...] = get_args(ActivationKind)
MANY = 64

_WIDTH = Accepts("count", "width")
_NORM = Accepts("word", "norm", ("bn", "gn", "none"))
_ACT = Accepts("word", "act", (*ACTIVATIONS, "none"))
_MODE = Accepts("word", "bilinear", ("bilinear", "nearest"))
_POOL = Accepts("word", None, ("max", "avg"))
_STRIDE = Accepts("stride", 1, largest=64)
_DILATION = Accepts("count", 1, largest=1024)
_GROUPS = Accepts("count", 1)

SECTION: Mapping[str, Accepts] = {
    "width": Accepts("count", None, largest=16384),
    "norm": Accepts("word", "none", _NORM.words),
    "act": Accepts("word", "relu", _ACT.words),
}
"""Attributes that ``fpn`` and ``head`` have in common; ops read them by these names."""


class Apply(Protocol):
    """Adds a layer to what is being built and gives its index; see `expand.Expander.apply`."""

    def __call__(self, layer: Layer, *inputs: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Primitive:
    """A word of the language that stands for layers.

    Attributes:
        least, most: how many operands it takes.
        attributes: what it accepts.
        expand: given the attribute values, the operands' indices and `Apply`, the index of the result.
        weight: how many layers it becomes at the most.
    """

    name: str
    least: int
    most: int
    attributes: Mapping[str, Accepts]
    expand: Callable[[dict[str, Any], tuple[int, ...], Apply], int]
    weight: int = 1


def _finish(a: dict[str, Any], x: int, apply: Apply) -> int:
    """Norm and activation behind a convolution."""
    if a["norm"] != "none":
        x = apply(Norm(a["norm"]), x)
    if a["act"] != "none":
        x = apply(Activation(a["act"]), x)
    return x


def _conv(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    bias = a["norm"] == "none" if a["bias"] == "auto" else a["bias"] == "true"
    layer = Conv(a["width"], a["k"], a["stride"], a["dilation"], a["groups"], bias)
    return _finish(a, apply(layer, *x), apply)


def _deform_conv(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    layer = DeformConv(a["width"], a["k"], a["stride"], a["dilation"], a["offset_groups"], a["groups"], a["bias"] == "true")
    return _finish(a, apply(layer, *x), apply)


def _norm(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return x[0] if a["norm"] == "none" else apply(Norm(a["norm"]), *x)


def _act(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return x[0] if a["act"] == "none" else apply(Activation(a["act"]), *x)


def _resize(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(Resize(a["to"], a["mode"]), *x)


def _pool(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(Pool(a["kind"], a["k"], a["stride"]), *x)


def _global_pool(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(GlobalPool(a["kind"]), *x)


def _plain(layer: Layer) -> Callable[[dict[str, Any], tuple[int, ...], Apply], int]:
    return lambda a, x, apply: apply(layer, *x)


_CONV: dict[str, Accepts] = {
    "k": Accepts("odd", None, largest=63),
    "stride": _STRIDE,
    "dilation": _DILATION,
    "groups": _GROUPS,
    "width": _WIDTH,
    "norm": _NORM,
    "act": _ACT,
    "bias": Accepts("flag", "auto", ("auto",)),
}

PRIMITIVES: dict[str, Primitive] = {
    p.name: p
    for p in (
        Primitive("conv", 1, 1, _CONV, _conv, 3),
        Primitive(
            "deform_conv",
            1,
            1,
            _CONV | {"k": Accepts("odd", 3, largest=63), "offset_groups": _GROUPS, "bias": Accepts("flag", "true")},
            _deform_conv,
            3,
        ),
        Primitive("norm", 1, 1, {"norm": _NORM}, _norm),
        Primitive("act", 1, 1, {"act": _ACT}, _act),
        Primitive("scale", 1, 1, {}, _plain(Scale())),
        Primitive("add", 2, MANY, {}, _plain(Add())),
        Primitive("mul", 2, MANY, {}, _plain(Multiply())),
        Primitive("max", 2, MANY, {}, _plain(Maximum())),
        Primitive("weighted_add", 2, MANY, {}, _plain(WeightedAdd())),
        Primitive("concat", 2, MANY, {}, _plain(Concat())),
        Primitive("resize", 1, 1, {"to": Accepts("feature"), "mode": _MODE}, _resize),
        Primitive("pool", 1, 1, {"k": Accepts("count", 3, largest=64), "stride": _STRIDE, "kind": _POOL}, _pool),
        Primitive("global_pool", 1, 1, {"kind": _POOL}, _global_pool),
        *(Primitive(name, 1, 1, {}, _plain(Activation(name))) for name in ACTIVATIONS),  # type: ignore[arg-type]
    )
}


def find(name: str) -> Primitive | None:
    """The primitive of this name, built in or added by a `CustomLayer`."""
    return PRIMITIVES.get(name) or _custom(name)


def known() -> list[str]:
    return [*PRIMITIVES, *layers.CUSTOM]


_plugins_loaded = False


def _custom(name: str) -> Primitive | None:
    global _plugins_loaded
    if name not in layers.CUSTOM and not _plugins_loaded:
        _plugins_loaded = True
        layers.load_plugins()
    cls = layers.CUSTOM.get(name)
    if cls is None:
        return None
    attributes = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # `primitive` asks for a dataclass
        default = field.default
        if isinstance(default, bool):
            attributes[field.name] = Accepts("flag", "true" if default else "false")
        elif isinstance(default, int):
            attributes[field.name] = Accepts("index", default, largest=10**9)
        else:
            attributes[field.name] = Accepts("word", str(default), field.metadata.get("words", (str(default),)))

    def expand(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
        flags = {"true": True, "false": False}
        return apply(cls(**{k: flags.get(v, v) if isinstance(v, str) else v for k, v in a.items()}), *x)

    return Primitive(name, cls.operands, cls.operands, attributes, expand)
