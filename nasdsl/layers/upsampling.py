"""Primitive layers that lead to finer maps: transposed convolution, pixel shuffle, CARAFE.

A map of 7 pixels comes from one of 13 or 14, so twice the pixels may be one too many: their modules are given the height and
width of the level, and cut off what is beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from nasdsl.layers.base import FREE, Cost, Feature, LayerError
from nasdsl.layers.builtin import check_groups, halvings


def _finer(x: Feature, factor: int, width: int, attribute: str) -> Feature:
    """A map `factor` times as high and wide as `x`."""
    if factor == 1:
        raise LayerError("factor", f"`{attribute}=1` leaves the resolution as it is")
    if x.level is None:
        raise LayerError("no level", "a globally pooled value has one position, and no finer map")
    if x.level < halvings(factor):
        raise LayerError("finest", f"`{attribute}={factor}` of a map of level {x.level} leads below level 0")
    return Feature(x.level - halvings(factor), width)


@dataclass(frozen=True, slots=True)
class UpConv:
    """A transposed convolution: `stride` times as high and wide, cut to the size of the level.

    ``width`` and ``groups`` as of `Conv`.
    """

    width: int
    k: int = 2
    stride: int = 2
    groups: int = 1
    bias: bool = False

    kind: ClassVar[str] = "up_conv"

    def resolved(self, x: Feature) -> UpConv:
        """The same with numbers for an operand of this shape."""
        return replace(self, width=self.width or x.width, groups=self.groups or x.width)

    @property
    def padding(self) -> int:
        """What is left out on each side, so that the whole result is `stride` times as large."""
        return (self.k - self.stride + 1) // 2

    @property
    def output_padding(self) -> int:
        """Pixels that are added at the bottom and on the right where k - stride is odd."""
        return 2 * self.padding - (self.k - self.stride)

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        if self.k < self.stride:
            raise LayerError("factor", f"a kernel of {self.k} at `stride={self.stride}` leaves gaps; k is at least the stride")
        made = self.resolved(inputs[0])
        check_groups(inputs[0], made.groups, made.width)
        return _finer(inputs[0], self.stride, made.width, "stride")

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        """`area` is that of the operand: each of its positions is multiplied by the whole kernel."""
        made = self.resolved(inputs[0])
        weights = inputs[0].width // made.groups * self.k * self.k * made.width
        bias = made.width if self.bias else 0
        return Cost(weights * area, weights + bias, (weights + bias * self.stride * self.stride) * area)


@dataclass(frozen=True, slots=True)
class PixelShuffle:
    """Blocks of factor x factor pixels from factor^2 channels each (arXiv:1609.05158), cut to the size of the level."""

    factor: int = 2

    kind: ClassVar[str] = "pixel_shuffle"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        width = inputs[0].width
        if width % self.factor**2:
            raise LayerError(
                "factor", f"`factor={self.factor}` makes one channel of {self.factor**2}, which do not divide {width} channels"
            )
        return _finer(inputs[0], self.factor, width // self.factor**2, "factor")

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE


@dataclass(frozen=True, slots=True)
class Carafe:
    """Content-aware reassembly of features: each new pixel is a weighted mean of k x k old ones, with predicted weights.

    Source: arXiv:1905.02188. A 1x1 convolution to `compressed` channels, a convolution of `encoder_k` x `encoder_k` to
    k * k * factor^2 channels, both with bias, a pixel shuffle, and a softmax over the k * k weights.
    """

    factor: int = 2
    k: int = 5
    encoder_k: int = 3
    compressed: int = 64

    kind: ClassVar[str] = "carafe"

    @property
    def weights(self) -> int:
        """Channels that the encoder predicts: k * k for each new pixel of an old one."""
        return (self.k * self.factor) ** 2

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return _finer(inputs[0], self.factor, inputs[0].width, "factor")

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        """`area` is that of the operand: the paper counts compression, encoding and reassembly for each of its positions."""
        width = inputs[0].width
        compression = width * self.compressed
        encoding = self.compressed * self.encoder_k**2 * self.weights
        reassembly = self.weights * width
        biases = self.compressed + self.weights
        params = compression + encoding + biases
        return Cost((compression + encoding + reassembly) * area, params, (params + reassembly) * area)
