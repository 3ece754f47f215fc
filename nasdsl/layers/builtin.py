"""The built-in primitive layers, each with its shape rule and its cost rule.

``infer`` gives level and width of the result, or raises `LayerError`; ``cost`` gives the cost for one image, where ``area``
is height * width of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, TypeAlias, TypeVar

from nasdsl.layers.base import FREE, UNKNOWN_WIDTH, Cost, Feature, Features, LayerError

NormKind: TypeAlias = Literal["bn", "gn", "gn16", "gn8", "gn4", "gn2", "gn1", "ln"]
ActivationKind: TypeAlias = Literal[
    "relu", "relu6", "leaky_relu", "silu", "hardswish", "gelu", "sigmoid", "hardsigmoid", "tanh"
]  # fmt: skip
ResizeMode: TypeAlias = Literal["bilinear", "nearest", "aligned"]
PoolKind: TypeAlias = Literal["max", "avg"]

GROUP_NORMS: Final[Mapping[NormKind, int]] = {"gn": 32, "gn16": 16, "gn8": 8, "gn4": 4, "gn2": 2, "gn1": 1}
"""The number of groups of each GroupNorm, from many to few."""

OWN_WIDTH = 0
"""Of a convolution's ``width`` and ``groups``: the number of channels that come in, where it is not known yet."""


def halvings(stride: int) -> int:
    """The number of levels that a stride, a power of two, goes up: 2 gives 1."""
    return stride.bit_length() - 1


def _convolved(x: Feature, stride: int, width: int) -> Feature:
    if stride == 1 and width == x.width:
        return x
    return Feature(None if x.level is None else x.level + halvings(stride), width)


def check_groups(x: Feature, groups: int, width: int) -> None:
    """Raise `LayerError` where groups do not divide the channels in and out."""
    if groups != OWN_WIDTH and (x.width % groups or width % groups):
        kind = "own groups" if groups == x.width else "groups"
        raise LayerError(kind, f"{groups} groups do not divide {x.width} channels in and {width} out")


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a graph: a backbone feature (``c5``), or the operand of a head's layer (``x``)."""

    name: str

    kind: ClassVar[str] = "input"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution; padding keeps the resolution at stride 1 (dilation * (k - 1) / 2 on each side).

    ``width`` and ``groups`` may be `OWN_WIDTH` where the backbone gives the operand's width.
    """

    width: int
    k: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    bias: bool = False

    kind: ClassVar[str] = "conv"

    def resolved(self, x: Feature) -> Conv:
        """The same with numbers for an operand of this shape."""
        return _resolved(self, x)

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        made = self.resolved(inputs[0])
        check_groups(inputs[0], made.groups, made.width)
        return _convolved(inputs[0], made.stride, made.width)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        made = self.resolved(inputs[0])
        weights = inputs[0].width // made.groups * made.k * made.k * made.width
        bias = made.width if made.bias else 0
        return Cost(weights * area, weights + bias, (weights + bias) * area)


@dataclass(frozen=True, slots=True)
class DeformConv:
    """Modulated deformable convolution (DCNv2, arXiv:1811.11168) with the 3x3 convolution that predicts offsets and mask.

    That convolution has a bias, the same stride, and 3 * offset_groups * k * k channels. With a second operand, offsets and
    mask are its channels, and there is no such convolution; without a mask it has 2 * offset_groups * k * k channels.
    ``width`` and ``groups`` as of `Conv`.
    """

    width: int
    k: int = 3
    stride: int = 1
    dilation: int = 1
    offset_groups: int = 1
    groups: int = 1
    bias: bool = True

    kind: ClassVar[str] = "deform_conv"

    def resolved(self, x: Feature) -> DeformConv:
        """The same with numbers for an operand of this shape."""
        return _resolved(self, x)

    @property
    def offset_channels(self) -> int:
        return 3 * self.offset_groups * self.k * self.k

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        if inputs[0].level is None:
            raise LayerError("no level", "a deformable convolution needs a map; this value has one position")
        made = self.resolved(inputs[0])
        check_groups(inputs[0], made.groups, made.width)
        if inputs[0].width % self.offset_groups:
            raise LayerError("groups", f"{self.offset_groups} offset groups do not divide {inputs[0].width} channels")
        out = _convolved(inputs[0], made.stride, made.width)
        for offsets in inputs[1:]:
            least, most = self.offset_channels // 3 * 2, self.offset_channels
            if offsets.width not in (UNKNOWN_WIDTH, least, most):
                expected = f"{least}, or {most} with a mask"
                raise LayerError("offset", f"offsets of {offsets.width} channels; expected {expected}")
            if offsets.level != out.level:
                found = "no level" if offsets.level is None else f"level {offsets.level}"
                raise LayerError("offset", f"offsets of {found} for a result of level {out.level}")
        return out

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        width, made = inputs[0].width, self.resolved(inputs[0])
        predicted = self.offset_channels if len(inputs) == 1 else 0
        weights = width // made.groups * made.k * made.k * made.width
        offsets = width * 9 * predicted
        biases = (made.width if made.bias else 0) + predicted
        return Cost((weights + offsets) * area, weights + offsets + biases, (weights + offsets + biases) * area)


_Convolution = TypeVar("_Convolution", Conv, DeformConv)


def _resolved(layer: _Convolution, x: Feature) -> _Convolution:
    if OWN_WIDTH not in (layer.width, layer.groups):
        return layer
    return replace(layer, width=layer.width or x.width, groups=layer.groups or x.width)


@dataclass(frozen=True, slots=True)
class Norm:
    """BatchNorm (``bn``), GroupNorm (of `GROUP_NORMS`), or LayerNorm over the channels of each position (``ln``)."""

    norm: NormKind

    kind: ClassVar[str] = "norm"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        groups = GROUP_NORMS.get(self.norm, 1)
        if inputs[0].width % groups:
            raise LayerError("group norm", f"GroupNorm has {groups} groups, which do not divide {inputs[0].width} channels")
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return Cost(0, 2 * out.width, 2 * out.width * area if self.norm == "bn" else 0)


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function, applied to each element."""

    function: ActivationKind

    kind: ClassVar[str] = "act"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return Cost(0, 0, out.width * area if self.function in ("relu", "relu6") else 0)


@dataclass(frozen=True, slots=True)
class Scale:
    """One learnable factor per channel, initially 1."""

    kind: ClassVar[str] = "scale"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return Cost(0, out.width)


def _combined(inputs: Sequence[Feature], width: int) -> Feature:
    levels = [x.level for x in inputs if x.level is not None]
    return Feature(min(levels) if levels else None, width)


def _common_width(inputs: Sequence[Feature], what: str) -> int:
    """The width of elementwise results: that of all operands but those of one channel, which broadcast."""
    widths = {x.width for x in inputs}
    known = widths - {UNKNOWN_WIDTH, 1}
    if len(known) > 1:
        raise _unequal(inputs, what)
    return known.pop() if known else min(widths)


def _unequal(inputs: Sequence[Feature], what: str) -> LayerError:
    return LayerError("widths", f"{what} of {' and '.join(str(x.width or '?') for x in inputs)} channels")


def check_merged(inputs: Sequence[Feature]) -> None:
    """Check the widths of a value and of what is merged into it: they are equal, so that none broadcasts unasked.

    Raises:
        LayerError: they differ.
    """
    if len({x.width for x in inputs} - {UNKNOWN_WIDTH}) > 1:
        raise _unequal(inputs, "a sum")


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of its operands, which have one width, or one channel; lowering has resized them to one resolution."""

    kind: ClassVar[str] = "add"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return _combined(inputs, _common_width(inputs, "a sum"))

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Multiply:
    """The elementwise product of its operands; a globally pooled value broadcasts."""

    kind: ClassVar[str] = "mul"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return _combined(inputs, _common_width(inputs, "a product"))

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Factor:
    """Multiplication by a constant."""

    value: float

    kind: ClassVar[str] = "factor"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Term:
    """Addition of a constant."""

    value: float

    kind: ClassVar[str] = "term"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Maximum:
    """The elementwise maximum of its operands."""

    kind: ClassVar[str] = "max"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return _combined(inputs, _common_width(inputs, "a maximum"))

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class WeightedAdd:
    """``sum(relu(w_i) * x_i) / (sum(relu(w_i)) + 1e-4)``, one learnable weight an operand, initially 1.

    Source: the fast normalized fusion of EfficientDet (arXiv:1911.09070, section 3.3).
    """

    kind: ClassVar[str] = "weighted_add"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return _combined(inputs, _common_width(inputs, "a weighted sum"))

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return Cost(0, len(inputs))


@dataclass(frozen=True, slots=True)
class PlacewiseAdd:
    """The sum of its operands, weighted at each position: by the softmax over the channels of the last one, one for each other.

    The last operand does not decide the level. Source: adaptive spatial feature fusion (arXiv:1911.09516, section 3.2).
    """

    kind: ClassVar[str] = "weighted_add"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        *operands, weights = inputs
        if weights.width not in (UNKNOWN_WIDTH, len(operands)):
            raise LayerError("weights", f"weights of {weights.width} channels for {len(operands)} operands")
        out = _combined(operands, _common_width(operands, "a weighted sum"))
        return Feature(weights.level, out.width) if out.level is None else out

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation of its operands along the channels, in order."""

    kind: ClassVar[str] = "concat"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        known = all(x.width for x in inputs)
        return _combined(inputs, sum(x.width for x in inputs) if known else UNKNOWN_WIDTH)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Split:
    """Equal runs of channels of its operand, in order; a layer of several results."""

    parts: int

    kind: ClassVar[str] = "split"

    def infer(self, inputs: Sequence[Feature]) -> Features:
        level, width = inputs[0]
        if width % self.parts:
            raise LayerError("parts", f"{self.parts} parts do not divide {width} channels")
        return Features.of([Feature(level, width // self.parts)] * self.parts)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Resize:
    """Interpolation to the resolution of a level.

    ``bilinear`` is with ``align_corners=False``, ``aligned`` is bilinear with ``align_corners=True``.
    """

    level: int
    mode: ResizeMode = "bilinear"

    kind: ClassVar[str] = "resize"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return Feature(self.level, inputs[0].width)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooling with a window of k x k. At stride s the map has 1/s of the input's size, rounded up, as after a convolution.

    An odd window is centred, with padding (k - 1) / 2. An even window is as wide as the stride, without padding: the windows
    do not overlap, and the last one may be cut off (``ceil_mode``).
    """

    pool: PoolKind
    k: int
    stride: int

    kind: ClassVar[str] = "pool"

    @property
    def padding(self) -> int:
        return (self.k - 1) // 2 if self.k % 2 else 0

    @property
    def cuts(self) -> bool:
        """Whether the last window may be cut off (``ceil_mode``)."""
        return self.k % 2 == 0

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        if self.cuts and self.k != self.stride:
            raise LayerError("window", f"an even window of {self.k} at stride {self.stride}")
        return _convolved(inputs[0], self.stride, inputs[0].width)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """Mean or maximum of each channel: the result is 1x1 and has no level."""

    pool: PoolKind

    kind: ClassVar[str] = "global_pool"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return Feature(None, inputs[0].width)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a layer that gives several: of `Split`, or a `CustomLayer` with ``results``. The first has index 0."""

    index: int

    kind: ClassVar[str] = "result"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        several = inputs[0]
        assert isinstance(several, Features)
        return several.results[self.index]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE
