"""Two primitives of nasdsl: ``bands`` splits a map into a coarse one and what that lacks, ``learned_up`` goes one level down.

Importing this module registers them. torch is imported only where a module is made, so that `nasdsl check` starts quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nasdsl.layers import FREE, Cost, CustomLayer, Feature, LayerError, primitive

if TYPE_CHECKING:
    from torch import nn

    from nasdsl.backends.onnx.writer import Writer


@primitive("bands", results=2)
@dataclass(frozen=True, slots=True)
class Bands(CustomLayer):
    """``low, detail = bands(x)``: the mean of 2x2 pixels, one level up, and what x has beyond it, times `gain`."""

    gain: float = 1.0

    def infer(self, inputs: Sequence[Feature]) -> tuple[Feature, Feature]:
        (x,) = inputs
        if x.level is None:
            raise LayerError("bands", "a globally pooled value has no bands")
        return Feature(x.level + 1, x.width), x

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return FREE

    def module(self, inputs: Sequence[Feature], out: Feature) -> nn.Module:
        from pyramid_bands.modules import BandSplit

        return BandSplit(self.gain)

    def source(self, inputs: Sequence[Feature], out: Feature) -> str:
        return f"BandSplit({self.gain})"

    def definitions(self) -> Sequence[Any]:
        from pyramid_bands.modules import BandSplit

        return [BandSplit]

    def onnx(self, writer: Writer, module: nn.Module, x: Sequence[str]) -> tuple[str, str]:
        low = writer.op("AveragePool", x[0], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=0)
        coarse = resized(writer, low, writer.op("Shape", x[0], start=2))
        return low, writer.op("Mul", writer.op("Sub", x[0], coarse), writer.number(self.gain))


@primitive("learned_up", sized=True)
@dataclass(frozen=True, slots=True)
class LearnedUp(CustomLayer):
    """``learned_up(x)``: to the next finer level, the nearest value each, then a depthwise convolution of `k` x `k`."""

    k: int = 3

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        (x,) = inputs
        if not x.level:
            raise LayerError("learned_up", "there is no finer level")
        if self.k % 2 == 0:
            raise LayerError("learned_up", f"k is {self.k}; expected an odd number, so that padding can keep the resolution")
        return Feature(x.level - 1, x.width)

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        weights = self.k * self.k * out.width
        bias = out.width
        return Cost(macs=weights * area, params=weights + bias, published_flops=(weights + bias) * area)

    def module(self, inputs: Sequence[Feature], out: Feature) -> nn.Module:
        from pyramid_bands.modules import UpConv

        return UpConv(out.width, self.k)

    def source(self, inputs: Sequence[Feature], out: Feature) -> str:
        return f"UpConv({out.width}, {self.k})"

    def definitions(self) -> Sequence[Any]:
        from pyramid_bands.modules import UpConv

        return [UpConv]

    def onnx(self, writer: Writer, module: Any, x: Sequence[str], size: str) -> str:
        operands = resized(writer, x[0], size), *(writer.own_weight(name, value) for name, value in module.named_parameters())
        return writer.op("Conv", *operands, kernel_shape=[self.k] * 2, pads=[self.k // 2] * 4, group=module.weight.shape[0])


def resized(writer: Writer, x: str, size: str) -> str:
    """Write nearest interpolation of `x` to the tensor `size`, [height, width]."""
    shape = writer.op("Concat", writer.op("Shape", x, start=0, end=2), size, axis=0)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return writer.op("Resize", x, "", "", shape, **how)
