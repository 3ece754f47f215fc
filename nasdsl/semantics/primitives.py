"""The primitives as texts call them: operands, attributes, and the layers that a call expands into."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, get_args

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import lints, names
from nasdsl.layers import (
    CUSTOM,
    Activation,
    ActivationKind,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    Feature,
    GlobalPool,
    Layer,
    LayerError,
    Maximum,
    Multiply,
    Norm,
    NormKind,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    ResizeMode,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
    load_plugins,
)
from nasdsl.layers.attention import PositionKind
from nasdsl.layers.custom import describe, layer_fields
from nasdsl.layers.fields import MAX_INTEGER, FieldType, LayerField
from nasdsl.layers.plugins import GROUP
from nasdsl.semantics.attributes import Accepts, Kind, Value
from nasdsl.semantics.builder import NOTHING

ACTIVATIONS: tuple[str, ...] = get_args(ActivationKind)
MAX_OPERANDS = 64

_WIDTH = Accepts("count", "width")
_NORM = Accepts("word", "norm", (*get_args(NormKind), "none"))
_ACT = Accepts("word", "act", (*ACTIVATIONS, "none"))
_MODE = Accepts("word", "bilinear", get_args(ResizeMode))
_POOL = Accepts("word", None, ("max", "avg"))
_STRIDE = Accepts("stride", 1, largest=64)
_DILATION = Accepts("count", 1, largest=1024)
_GROUPS = Accepts("count", 1)

OWN_WIDTH = "in"
"""The word for the width of the operand, of attributes that take it."""

FACTOR, TERM = "*", "+"
CONSTANTS: Final = (FACTOR, TERM)
"""The attributes that numbers among the operands of ``mul`` and ``add`` become: the operator that joins several of them. No
text can set them by these names."""

SECTION: Mapping[str, Accepts] = {
    "width": Accepts("count", None, largest=16384),
    "norm": Accepts("word", "none", _NORM.words),
    "act": Accepts("word", "relu", _ACT.words),
}
"""Attributes of both ``fpn`` and ``head``; ops refer to them by these names."""


class Apply(Protocol):
    """Adds a layer with the given operands and returns its index; see `builder.LayerBuilder.apply`."""

    def __call__(self, layer: Layer, *inputs: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Primitive:
    """A name of the language that stands for layers.

    Attributes:
        least, most: how many operands it takes; one is enough where there is a constant too.
        attributes: its attributes, and what each accepts.
        expand: called with the attribute values, the operands' indices and an `Apply`; returns the index of the result.
        weight: the largest number of layers that it expands into.
        results: how many values it gives.
        results_of: the attribute that says how many values a call gives; empty where it is always `results`.
        variants: attributes whose value is a further operand, each with the primitive that takes it as its last one.
        last: of such a primitive, the attribute that its last operand is written as.
        constant: the attribute of `CONSTANTS` that numbers among its operands become; empty where it takes none.
    """

    name: str
    least: int
    most: int
    attributes: Mapping[str, Accepts]
    expand: Callable[[dict[str, Any], tuple[int, ...], Apply], int]
    weight: int = 1
    results: int = 1
    results_of: str = ""
    variants: Mapping[str, Primitive] = field(default_factory=dict)
    last: str = ""
    constant: str = ""


def _finish(a: dict[str, Any], x: int, apply: Apply) -> int:
    """Add norm and activation after a convolution."""
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


def _mul(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    product = apply(Multiply(), *x) if len(x) > 1 else x[0]
    return product if a[FACTOR] == 1 else apply(Factor(float(a[FACTOR])), product)


def _add(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    total = apply(Add(), *x) if len(x) > 1 else x[0]
    return total if a[TERM] == 0 else apply(Term(float(a[TERM])), total)


def _up_conv(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    bias = a["norm"] == "none" if a["bias"] == "auto" else a["bias"] == "true"
    return _finish(a, apply(UpConv(a["width"], a["k"], a["stride"], a["groups"], bias), *x), apply)


def _pixel_shuffle(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(PixelShuffle(a["factor"]), *x)


def _carafe(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(Carafe(a["factor"], a["k"], a["encoder_k"], a["compressed"]), *x)


def _attention(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(Attention(a["heads"], a["position"]), *x)


def _norm(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return x[0] if a["norm"] == "none" else apply(Norm(a["norm"]), *x)


def _act(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return x[0] if a["act"] == "none" else apply(Activation(a["act"]), *x)


def _nothing(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return NOTHING


def _split(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
    return apply(Split(a["parts"]), *x)


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

_OF_OPERAND = {"groups": replace(_GROUPS, words=(OWN_WIDTH,)), "width": replace(_WIDTH, words=(OWN_WIDTH,))}
_VALUE = Accepts("value", optional=True)
_WEIGHTED_BY = Primitive("weighted_add", 3, MAX_OPERANDS + 1, {}, _plain(PlacewiseAdd()), last="by")
_TIMES = Accepts("stride", 2, largest=64)
_UP_CONV = {name: accepts for name, accepts in (_CONV | _OF_OPERAND).items() if name != "dilation"}
NONE: Final = "none"
"""The primitive, and the operand, that leaves an operand out."""

LEAVES_OUT: Final = frozenset({"add", "max", "weighted_add", "concat"})
"""Primitives that an operand can drop out of. What any other would make of nothing is nothing."""

_DEFORM_CONV = {
    **_CONV,
    **_OF_OPERAND,
    "k": Accepts("odd", 3, largest=63),
    "offset_groups": _GROUPS,
    "bias": Accepts("flag", "true"),
}
_BY_OFFSET = Primitive("deform_conv", 2, 2, _DEFORM_CONV, _deform_conv, 3, last="offset")

PRIMITIVES: dict[str, Primitive] = {
    p.name: p
    for p in (
        Primitive(NONE, 0, MAX_OPERANDS, {}, _nothing),
        Primitive("conv", 1, 1, _CONV | _OF_OPERAND, _conv, 3),
        Primitive(
            "deform_conv", 1, 1, _DEFORM_CONV | {"offset": _VALUE}, _deform_conv, 3, variants={_BY_OFFSET.last: _BY_OFFSET}
        ),
        Primitive("up_conv", 1, 1, _UP_CONV | {"k": Accepts("count", 2, largest=64), "stride": _TIMES}, _up_conv, 3),
        Primitive("pixel_shuffle", 1, 1, {"factor": _TIMES}, _pixel_shuffle),
        Primitive(
            "carafe",
            1,
            1,
            {
                "factor": _TIMES,
                "k": Accepts("odd", 5, largest=63),
                "encoder_k": Accepts("odd", 3, largest=63),
                "compressed": Accepts("count", 64, largest=16384),
            },
            _carafe,
        ),
        Primitive(
            "attention",
            1,
            1,
            {"heads": Accepts("count", 8, largest=1024), "position": Accepts("word", "sine", get_args(PositionKind))},
            _attention,
        ),
        Primitive("norm", 1, 1, {"norm": _NORM}, _norm),
        Primitive("act", 1, 1, {"act": _ACT}, _act),
        Primitive("scale", 1, 1, {}, _plain(Scale())),
        Primitive("add", 2, MAX_OPERANDS, {TERM: Accepts("number", 0)}, _add, 2, constant=TERM),
        Primitive("mul", 2, MAX_OPERANDS, {FACTOR: Accepts("number", 1)}, _mul, 2, constant=FACTOR),
        Primitive("max", 2, MAX_OPERANDS, {}, _plain(Maximum())),
        Primitive(
            "weighted_add", 2, MAX_OPERANDS, {"by": _VALUE}, _plain(WeightedAdd()), variants={_WEIGHTED_BY.last: _WEIGHTED_BY}
        ),
        Primitive("concat", 2, MAX_OPERANDS, {}, _plain(Concat())),
        Primitive("split", 1, 1, {"parts": Accepts("count", 2, largest=MAX_OPERANDS, least=2)}, _split, results_of="parts"),
        Primitive("resize", 1, 1, {"to": Accepts("feature"), "mode": _MODE}, _resize),
        Primitive("pool", 1, 1, {"k": Accepts("count", 3, largest=64), "stride": _STRIDE, "kind": _POOL}, _pool),
        Primitive("global_pool", 1, 1, {"kind": _POOL}, _global_pool),
        *(Primitive(name, 1, 1, {}, _plain(Activation(name))) for name in ACTIVATIONS),  # type: ignore[arg-type]  # its names are those of the type
    )
}


MEANINGS: Final[Mapping[str, str]] = {
    "none": "nothing: the operand is left out",
    "conv": (
        "convolution of kernel k x k, then norm, then activation. Padding keeps the resolution at stride 1. `bias=auto` "
        "is a bias exactly where no norm follows."
    ),
    "deform_conv": (
        "modulated deformable convolution (DCNv2), then norm, then activation. Its own 3x3 convolution predicts offsets "
        "and mask: with bias, `3 * offset_groups * k * k` channels, initialized with zeros, sigmoid on the mask. With "
        "`offset`, these are another value."
    ),
    "up_conv": "transposed convolution, then norm, then activation: `stride` times as high and wide, to the level below",
    "pixel_shuffle": (
        "blocks of factor x factor pixels, each from factor^2 channels (arXiv:1609.05158): the width is divided by "
        "factor^2, the map is `factor` times as high and wide, at the level below"
    ),
    "carafe": (
        "content-aware reassembly (arXiv:1905.02188) to the level below: each new pixel is a mean of the k x k old ones "
        "around it. Its weights are predicted: a 1x1 convolution to `compressed` channels, one of `encoder_k`, both with "
        "bias, a pixel shuffle, and a softmax over k x k"
    ),
    "attention": "multi-head self-attention over all positions of the map",
    "norm": (
        "`bn`: BatchNorm, `gn`: GroupNorm of 32 groups, `gn16` to `gn1`: of as many as the name says, `ln`: LayerNorm over "
        "the channels of each position (as ConvNeXt has it), `none`: identity"
    ),
    "act": "the activation of this name, `none`: identity",
    "scale": "one learnable factor per channel, initially 1",
    "add": "sum. Numbers among the operands are constants",
    "mul": "elementwise product. Numbers among the operands are constants",
    "max": "elementwise maximum",
    "weighted_add": (
        "`sum(relu(w_i) * x_i) / (sum(relu(w_i)) + 1e-4)`, one learnable weight per operand, initially 1. With `by`, "
        "weights per position in their place"
    ),
    "concat": "concatenation along the channels",
    "split": "equal runs of channels, in order: several values",
    "resize": (
        "interpolation to the level of a value, or to the level with this number: `nearest`, `bilinear` with "
        "`align_corners=False`, or `aligned`, bilinear with `align_corners=True`. A value that has this level already is not "
        "changed."
    ),
    "pool": (
        "pooling. An odd `k` has padding (k - 1) / 2, which averages do not include; an even `k` must equal `stride`, has"
        " no padding, and the last window may be smaller"
    ),
    "global_pool": "maximum or mean of each channel",
    **dict.fromkeys(ACTIVATIONS, "activation, as torch defines it by default"),
}
"""What each primitive does, as docs/language.md has it."""


def meaning(name: str) -> str:
    """What a primitive does; of one that a package registers, the first paragraph of its class's docstring."""
    cls = CUSTOM.get(name)
    documented = MEANINGS.get(name) or ("" if cls is None else inspect.getdoc(cls) or "")
    return " ".join(documented.split("\n\n")[0].split())


def find(name: str) -> Primitive | None:
    """The primitive of this name: built in, or registered by an installed package or by the program itself."""
    found = PRIMITIVES.get(name)
    if found is not None:
        return found
    if name not in CUSTOM:
        load_plugins()
    cls = CUSTOM.get(name)
    return None if cls is None else _of_custom_layer(cls)


def known() -> list[str]:
    """Names of all primitives."""
    return [*PRIMITIVES, *CUSTOM]


def with_plugin_warnings(problems: list[Diagnostic]) -> list[Diagnostic]:
    """Insert a warning for each package that could not be loaded, after the first op that nothing defines."""
    at = next((i for i, problem in enumerate(problems, 1) if problem.code == names.UNKNOWN_OP.code), None)
    if at is None:
        return problems
    unknown = problems[at - 1]
    warnings = [
        lints.plugin_failed(unknown.span, failed.package, failed.error, failed.name, GROUP) for failed in load_plugins()
    ]
    return [*problems[:at], *warnings, *problems[at:]]


_KINDS: Mapping[FieldType, Kind] = {"int": "index", "float": "number", "bool": "flag", "str": "word"}


_CUSTOM_PRIMITIVES: dict[type[CustomLayer], Primitive] = {}


def _of_custom_layer(cls: type[CustomLayer]) -> Primitive:
    if cls not in _CUSTOM_PRIMITIVES:
        _CUSTOM_PRIMITIVES[cls] = _make_primitive(cls)
    return _CUSTOM_PRIMITIVES[cls]


def _make_primitive(cls: type[CustomLayer]) -> Primitive:
    fields = {one.name: one for one in layer_fields(cls)}

    def expand(a: dict[str, Any], x: tuple[int, ...], apply: Apply) -> int:
        try:
            layer = cls(**{name: one.convert(a[name]) for name, one in fields.items()})
        except Exception as error:
            layer = _Refused(f"{describe(cls)} takes no such attributes: {type(error).__name__}: {error}")
        return apply(layer, *x)

    accepted = {name: accepts(field) for name, field in fields.items()}
    return Primitive(cls.kind, cls.operands, cls.operands, accepted, expand, cls.results, cls.results)


def accepts(field: LayerField, least: int = 0, largest: int = MAX_INTEGER) -> Accepts:
    """What the attribute of a field accepts; ``none`` is a word, so that a default of None is one too.

    Args:
        least, largest: bounds of an int; `least` is 0 or 1.
    """
    default: Value | None
    if field.required:
        default = None
    elif isinstance(field.default, bool) or field.default is None:
        default = str(field.default).lower()
    else:
        default = field.default
    words = (*field.words, "none") if field.optional else field.words
    kind: Kind = "count" if field.type == "int" and least >= 1 else _KINDS[field.type]
    return Accepts(kind, default, words, largest)


@dataclass(frozen=True, slots=True)
class _Refused(CustomLayer):
    """Stands for a layer that could not be made, so that the reason is reported where layers are."""

    message: str

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        raise LayerError("custom", self.message)
